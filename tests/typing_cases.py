"""What a type checker accepts as an app, and what it refuses. This file is never run.

mypy checks this file with ``warn_unused_ignores``, so each ``type: ignore`` is a test: that line must have that error.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict, assert_type

import aiohttp
from aiohttp import web
from channels.routing import ProtocolTypeRouter
from django.core.handlers.asgi import ASGIHandler
from fastapi import FastAPI
from litestar import Litestar
from multidict import CIMultiDict, MultiDict
from quart import Quart
from starlette.applications import Starlette
from starlette.types import ASGIApp as StarletteApp
from yarl import URL

import asgi_connector
from asgi_connector import (
    ASGIApplicationConnector,
    ASGIConnectorError,
    ASGIProtocolError,
    ASGIRoutingConnector,
    Exchange,
    Journal,
    Mount,
    Stub,
    UnmatchedRequestError,
    UnmountedHostError,
    faults,
)

# Apps, as users write them.


async def function(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None: ...


async def untyped_messages(scope: Any, receive: Any, send: Any) -> None: ...


async def other_names(environment: Mapping[str, object], source: object, sink: object) -> None: ...


async def returns_something(scope: Any, receive: Any, send: Any) -> int:
    return 1


async def more_with_defaults(scope: Any, receive: Any, send: Any, *, debug: bool = False) -> None: ...


def not_async_but_awaitable(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return untyped_messages(scope, receive, send)


class HTTPScope(TypedDict):
    """Frameworks with precise types for messages have such types."""

    type: Literal["http"]
    path: str


class Receive(Protocol):
    async def __call__(self) -> HTTPScope: ...


class Send(Protocol):
    async def __call__(self, message: HTTPScope, /) -> None: ...


class Precise:
    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None: ...


class Middleware:
    def __init__(self, app: StarletteApp) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None: ...


def every_app_is_accepted(
    starlette: Starlette, fastapi: FastAPI, litestar: Litestar, quart: Quart, middleware: Middleware
) -> None:
    ASGIRoutingConnector(
        {
            "a.internal": fastapi,
            "b.internal": starlette,
            "c.internal": function,
            "d.internal": untyped_messages,
            "e.internal": other_names,
            "f.internal": returns_something,
            "g.internal": more_with_defaults,
            "h.internal": not_async_but_awaitable,
            "i.internal": Precise(),
            "j.internal": middleware,
            "k.internal": middleware.method,
            "l.internal": Middleware.static,
            "m.internal": Middleware(fastapi),
            "n.internal": Mount(fastapi, root_path="/v1", client=None, raise_app_exceptions=False),
            "t.internal": Mount(fastapi, inherit_context="always"),
            "p.internal": ASGIHandler(),
            "q.internal": ProtocolTypeRouter({"http": ASGIHandler()}),
            "r.internal": litestar,
            "s.internal": quart,
            "o.internal": lambda scope, receive, send: function(scope, receive, send),
        }
    )
    for app in (fastapi, starlette, function, Precise(), middleware, Mount(starlette)):
        ASGIApplicationConnector(app)
        ASGIApplicationConnector(app, "/v1")
    Mount(Precise())
    Mount(function, client=("127.0.0.1", 1))


def every_mapping_of_apps_is_accepted(
    one_kind: dict[str, FastAPI],
    only_mounts: dict[str, Mount],
    read_only: MappingProxyType[str, Precise],
    mixed: Mapping[str, FastAPI | Starlette | Mount],
) -> None:
    ASGIRoutingConnector(one_kind)
    ASGIRoutingConnector(only_mounts)
    ASGIRoutingConnector(read_only)
    ASGIRoutingConnector(mixed)
    ASGIRoutingConnector({**one_kind, **only_mounts})
    ASGIRoutingConnector({})
    ASGIRoutingConnector()


# Objects that are not apps.


def no_app(a: int) -> int:
    return a


def no_app_at_all() -> None: ...


def not_awaitable(scope: Any, receive: Any, send: Any) -> None: ...


async def too_few(scope: Any, receive: Any) -> None: ...


async def too_many(scope: Any, receive: Any, send: Any, more: Any) -> None: ...


async def only_by_keyword(*, scope: Any, receive: Any, send: Any) -> None: ...


async def not_yet_called(scope: Any) -> Callable[[Any, Any], Awaitable[None]]:
    """An ASGI 2 app, the double callable."""
    raise NotImplementedError


class NotCallable: ...


# Applications of aiohttp.web, and factories.


def make_web() -> web.Application:
    return web.Application()


async def make_fastapi_later() -> FastAPI:
    return FastAPI()


def what_is_mounted_may_be_an_application_of_aiohttp_web(application: web.Application) -> None:
    ASGIRoutingConnector({"a.internal": application, "b.internal": Mount(application), "c.internal": function})
    ASGIRoutingConnector({"a.internal": application}).mount("b.internal", application)
    ASGIApplicationConnector(application)
    Mount(factory=make_web)
    Mount(factory=make_fastapi_later)
    Mount(factory=FastAPI, lifespan="on")
    Mount(factory=lambda: function)
    Mount(factory=application)  # which can be called, so only the run refuses it
    Mount(factory=function)  # type: ignore[arg-type]
    Mount(factory=no_app_at_all)  # type: ignore[arg-type]
    ASGIRoutingConnector(application)  # type: ignore[arg-type]
    ASGIRoutingConnector({"a.internal": make_web})  # type: ignore[dict-item]


def what_is_no_app_is_refused() -> None:
    ASGIRoutingConnector({"a.internal": no_app})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": no_app_at_all})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": not_awaitable})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": too_few})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": too_many})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": only_by_keyword})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": not_yet_called})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": NotCallable()})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": NotCallable})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": Precise})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": "main:app"})  # type: ignore[dict-item]
    ASGIRoutingConnector({"a.internal": None})  # type: ignore[dict-item]
    ASGIApplicationConnector(no_app)  # type: ignore[arg-type]
    ASGIApplicationConnector(not_awaitable)  # type: ignore[arg-type]
    ASGIApplicationConnector("main:app")  # type: ignore[arg-type]
    Mount(no_app)  # type: ignore[arg-type]
    Mount(Mount(function))  # type: ignore[arg-type]


def what_is_no_table_of_apps_is_refused(by_number: dict[int, FastAPI]) -> None:
    ASGIRoutingConnector(function)  # type: ignore[arg-type]
    ASGIRoutingConnector("a.internal")  # type: ignore[arg-type]
    ASGIRoutingConnector([("a.internal", function)])  # type: ignore[arg-type]
    ASGIRoutingConnector(by_number)  # type: ignore[arg-type]


# Settings.


def settings_are_typed(session: aiohttp.ClientSession) -> None:
    ASGIRoutingConnector({}, fallback=aiohttp.TCPConnector(), fallback_owner=False)
    ASGIRoutingConnector({}, fallback=ASGIApplicationConnector(function))
    ASGIRoutingConnector({}, client=None, root_path="/v1", raise_app_exceptions=False, shutdown_timeout=1)
    ASGIRoutingConnector({}, limit=1, limit_per_host=1, keepalive_timeout=1.5, force_close=False)
    ASGIRoutingConnector({}, keepalive_timeout=None)
    ASGIRoutingConnector({}, fallback=session)  # type: ignore[arg-type]
    ASGIRoutingConnector({}, client="127.0.0.1")  # type: ignore[arg-type]
    ASGIRoutingConnector({}, client=("127.0.0.1", "1"))  # type: ignore[arg-type]
    ASGIRoutingConnector({}, root_path=None)  # type: ignore[arg-type]
    ASGIRoutingConnector({}, raise_app_exceptions=None)  # type: ignore[arg-type]
    ASGIRoutingConnector({}, shutdown_timeout="2")  # type: ignore[arg-type]
    ASGIRoutingConnector({}, mounts={})  # type: ignore[call-arg]
    ASGIRoutingConnector({}, None)  # type: ignore[call-arg]
    ASGIApplicationConnector(function, fallback=None)  # type: ignore[call-arg]
    ASGIApplicationConnector(function, "/v1", None)  # type: ignore[call-arg]
    Mount(function, root_path=None)  # type: ignore[arg-type]
    Mount(function, client=("127.0.0.1",))  # type: ignore[arg-type]
    Mount(function, raise_app_exceptions="no")  # type: ignore[arg-type]
    Mount(function, inherit_context="inside")  # type: ignore[arg-type]
    Mount(function, "/v1")  # type: ignore[call-arg, arg-type]


def a_mount_is_frozen(mount: Mount) -> None:
    mount.root_path = "/v1"  # type: ignore[misc]
    mount.app = function  # type: ignore[misc]


# Use.


async def what_comes_out_is_typed(connector: ASGIRoutingConnector, mail: FastAPI) -> None:
    assert_type(connector.mounts, Mapping[str, Mount])
    assert_type(connector.mounts["a.internal"], Mount)
    assert_type(connector.closed, bool)
    async with connector as entered:
        assert_type(entered, ASGIRoutingConnector)
    async with ASGIApplicationConnector(mail) as application:
        assert_type(application, ASGIApplicationConnector)
    async with connector.mounted("a.internal", mail) as nothing:
        assert_type(nothing, None)
    connector.mount("a.internal", mail)
    connector.mount("a.internal", Mount(mail))
    await connector.unmount("a.internal")
    await connector.close()
    async with aiohttp.ClientSession(connector=connector) as session:
        await session.get("http://a.internal/")


async def misuse_is_refused(connector: ASGIRoutingConnector) -> None:
    connector.mounts["a.internal"] = Mount(function)  # type: ignore[index]
    connector.mounts = {}  # type: ignore[misc]
    connector.mount("a.internal", no_app)  # type: ignore[arg-type]
    connector.mounted("a.internal", no_app)  # type: ignore[arg-type]
    connector.mount(80, function)  # type: ignore[arg-type]
    connector.unmount("a.internal")  # type: ignore[unused-coroutine]
    with connector.mounted("a.internal", function):  # type: ignore[attr-defined]
        pass


def exceptions_are_what_they_stand_for(error: UnmountedHostError, broken: ASGIProtocolError) -> None:
    unreachable: aiohttp.ClientConnectorError = error
    own: tuple[ASGIConnectorError, ASGIConnectorError] = (error, broken)
    assert_type(error.host, str)
    assert_type(error.port, int | None)
    print(unreachable, own)


# The journal and faults.


def the_version_is_a_str() -> None:
    assert_type(asgi_connector.__version__, str)


def a_journal_is_a_sequence_of_exchanges(journal: Journal) -> None:
    exchanges: Sequence[Exchange] = journal
    assert_type(journal[0], Exchange)
    assert_type(journal[1:], Journal)
    assert_type(journal.select("a.internal", caller=None, method="GET", path="/", status=200), Journal)
    assert_type(journal.assert_called(path=re.compile("/.*"), times=1), Journal)
    assert_type(journal.assert_not_called(caller=..., where=lambda exchange: exchange.state == "failed"), Journal)
    journal.select(where=lambda exchange: exchange.request.headers.get("X-Id"))
    journal.assert_called(where=lambda exchange: exchange.response and exchange.response.headers.get("X-Id"))
    assert_type(journal.to_mermaid(), str)
    assert_type(journal.to_har(sensitive=True), dict[str, Any])
    journal.select(status=HTTPStatus.OK)
    journal.save_har(Path("a.har"))
    journal[0] = exchanges[0]  # type: ignore[index]
    journal.select(caller=80)  # type: ignore[arg-type]
    journal.select(path=b"/")  # type: ignore[arg-type]
    journal.select(path=re.compile(b"/"))  # type: ignore[arg-type]
    journal.select("a.internal", "GET")  # type: ignore[call-arg]
    journal.select(verb="GET")  # type: ignore[call-arg]


async def a_journal_is_asked_about_queries_and_bodies(journal: Journal, connector: ASGIRoutingConnector) -> None:
    assert_type(journal.select(query={"a": 1, "b": ["c", 2.5]}, json=[1, {"a": None}]), Journal)
    assert_type(journal.assert_called("a.internal", query="a=1", json=None, times=1), Journal)
    assert_type(journal.assert_not_called(query=MultiDict({"a": "b"}), json_contains={"a": {"b": [1]}}), Journal)
    assert_type(await journal.wait_for(json_contains=MappingProxyType({"a": 1}), timeout=2), Journal)
    connector.inject("a.internal", faults.Refuse(), query={"a": 1})
    journal.select(query=[("a", "1")])  # type: ignore[arg-type]
    journal.select(json_contains=[1])  # type: ignore[arg-type]
    journal.assert_called(where=lambda exchange: exchange.body)  # type: ignore[attr-defined]
    connector.inject("a.internal", faults.Refuse(), json={})  # type: ignore[call-arg]


def an_exchange_is_typed(exchange: Exchange) -> None:
    assert_type(exchange.caller, str | None)
    assert_type(exchange.parent, Exchange | None)
    assert_type(exchange.service, str | None)
    assert_type(exchange.via, Literal["app", "fallback", "refused", "fault"])
    assert_type(exchange.state, Literal["running", "done", "failed", "abandoned"])
    assert_type(exchange.reused, bool | None)
    assert_type(exchange.started, datetime)
    assert_type(exchange.duration, float)
    assert_type(exchange.status, int | None)
    assert_type(exchange.error, BaseException | None)
    assert_type(exchange.fault, faults.Incident | None)
    assert_type(exchange.url, URL)
    assert_type(exchange.path, str)
    assert_type(exchange.request.body, bytes | None)
    assert_type(exchange.request.headers["Accept"], str)
    assert_type(exchange.request.json(), Any)
    assert_type(exchange.request.text(), str)
    assert_type(exchange.request.text("latin-1"), str)
    exchange.response.json()  # type: ignore[union-attr]
    exchange.request.text(b"latin-1")  # type: ignore[arg-type]
    if exchange.response is not None:
        assert_type(exchange.response.body, bytes | None)
    for message in exchange.messages:
        assert_type(message.data, str | bytes | None)
    exchange.status = 200  # type: ignore[misc]


async def recording_and_injecting_are_typed(connector: ASGIRoutingConnector, fault: faults.Fault) -> None:
    with connector.record(bodies=True, max_body_size=1) as journal:
        assert_type(journal, Journal)
        assert_type(await journal.wait_for("a.internal", times=1, timeout=None), Journal)
    with connector.inject("a.internal", fault, caller=None, path=re.compile("/"), times=1, seed="a") as injected:
        assert_type(injected, faults.Injection)
        assert_type(injected.matched, int)
        assert_type(injected.affected, int)
        assert_type(injected.fault, faults.Fault)
    every_fault: list[faults.Fault] = [
        faults.Refuse(),
        faults.Unresolvable(),
        faults.Respond(HTTPStatus.BAD_GATEWAY, [(b"a", "b")], "body"),
        faults.Respond(502, CIMultiDict({"a": "b"}), b"body"),
        faults.Hang(on="connect"),
        faults.Reset(after=1),
        faults.Close(on="request"),
        faults.Latency(1, jitter=0.5),
        faults.Throttle(1000, on="request"),
    ]
    for each in every_fault:
        connector.inject("*", each, allow_unused=True)
    block: faults.Injection = connector.inject("*", faults.Reset())
    with block as entered:
        assert_type(entered, faults.Injection)
    connector.inject("a.internal")  # type: ignore[call-arg]
    connector.inject("a.internal", faults.Reset)  # type: ignore[arg-type]
    connector.inject("a.internal", faults.Reset(), status=200)  # type: ignore[call-arg]
    connector.inject(None, faults.Reset())  # type: ignore[arg-type]
    faults.Reset(on="connect")  # type: ignore[arg-type]
    faults.Respond(502, body={})  # type: ignore[arg-type]
    with connector.partition({"a.internal", None}, ["b.internal"], fault=faults.Refuse()) as partition:
        assert_type(partition, faults.Partition)
        assert_type(partition.affected, int)
    connector.partition({"a.internal"}, {1})  # type: ignore[arg-type]
    connector.partition({"a.internal"}, {"b.internal"}, fault=faults.Reset())  # type: ignore[arg-type]
    with connector.hold("a.internal", on="request", caller=None, method="GET", path="/") as held:
        assert_type(held, faults.Hold)
        [message] = await held.wait(1, timeout=None)
        assert_type(message, faults.HeldMessage)
        assert_type(message.exchange, Exchange)
        message.release()
        message.drop()
    connector.hold("a.internal", on="connect")  # type: ignore[arg-type]
    async with connector.crashed("a.internal", allow_unused=True) as nothing:
        assert_type(nothing, None)
    await connector.restart("a.internal")
    with connector.record("bodies"):  # type: ignore[call-arg, arg-type]
        pass
    async with connector.record():  # type: ignore[attr-defined]
        pass


# Stubs.


def a_stub_is_typed(error: UnmatchedRequestError) -> None:
    stub = Stub()
    ASGIRoutingConnector({"a.internal": stub, "b.internal": Mount(stub)})
    stub.get("/")
    stub.post(
        re.compile("/.*"), query={"a": 1, "b": ["c", 2.5]}, request_json=[1, {"a": None}], status=HTTPStatus.CREATED
    )
    stub.put("/", headers=[(b"a", "b")], json=None, times=1)
    stub.patch("/", headers=CIMultiDict({"a": "b"}), text="a")
    stub.delete("/", query=MultiDict({"a": "b"}), body=b"a", times=None)
    stub.on("PROPFIND", "/", query="a=1", status=207)
    assert_type(stub.assert_all_used(), None)
    assert_type(stub.problems(), list[str])
    own: ASGIConnectorError = error
    print(own)
    stub.get(URL("/"))  # type: ignore[arg-type]
    stub.get(re.compile(b"/"))  # type: ignore[arg-type]
    stub.head("/", payload={})  # type: ignore[call-arg]
    stub.options("/", text=b"a")  # type: ignore[arg-type]
    stub.get("/", body="a")  # type: ignore[arg-type]
    stub.get("/", status="200")  # type: ignore[arg-type]
    stub.get("/", query=[("a", "1")])  # type: ignore[arg-type]
    stub.on("/")  # type: ignore[call-arg]
