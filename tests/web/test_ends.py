"""Nothing is left of an aiohttp.web application, and nothing complains if its loop ends before its session."""

import asyncio
import gc
import logging
import warnings
import weakref
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asgi_connector import ASGIRoutingConnector
from tests.conftest import LOOPS, session_to
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.reports import records


def hanging_app() -> web.Application:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    async def chat(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        return ws

    async def ok(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_routes([web.get("/", ok), web.get("/hang", hang), web.get("/half", half), web.get("/chat", chat)])
    return app


async def open_much(**settings: Any) -> list[Any]:
    """A session that is not closed, with requests of many kinds in flight."""
    connector = ASGIRoutingConnector({"app.internal": hanging_app()}, **settings)
    session = aiohttp.ClientSession("http://app.internal", connector=connector)
    opened: list[Any] = [session, await session.ws_connect("/chat"), await session.get("/half")]
    opened.append(asyncio.create_task(session.get("/hang")))
    opened.append(asyncio.create_task((await session.ws_connect("/chat")).receive()))
    async with session.get("/") as response:
        opened.append(await response.read())
    return opened


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("raise_app_exceptions", [True, False])
@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize("cancels", [True, False])
def test_a_loop_that_ends_with_a_session_open_reports_the_session_only(
    new_loop: Any, raise_app_exceptions: bool, lifespan: str, cancels: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> list[Any]:
        main = open_much(raise_app_exceptions=raise_app_exceptions, lifespan=lifespan)
        if cancels:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(main)
        loop = new_loop()
        opened: list[Any] = loop.run_until_complete(main)
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # those of the test and of aiohttp's client
        loop.close()
        return opened

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        opened = run()
        opened.clear()
        gc.collect()
    assert records(caplog) == []
    messages = [record.getMessage().splitlines()[0] for record in caplog.records if record.levelno > logging.INFO]
    # In the debug mode of asyncio, aiohttp tells of responses too.
    assert set(messages) <= {f"Unclosed {what}" for what in ("client session", "connector", "connection", "response")}


@pytest.mark.parametrize("lifespan", ["auto", "off"])
async def test_closing_leaves_no_task_and_no_timer(lifespan: str) -> None:
    session, *others = await open_much(lifespan=lifespan, shutdown_timeout=0.01)
    await session.close()
    tasks = [other for other in others if isinstance(other, asyncio.Task)]
    await asyncio.wait(tasks)
    for task in tasks:
        task.exception()
    ws, response = others[:2]
    await ws.close()
    response.close()
    no_task_and_no_timer_is_left()


class Marker:
    """An object that can be referred to weakly."""


MARKER = web.AppKey("marker", Marker)


current: ContextVar[Marker] = ContextVar("current")


async def test_a_request_is_not_kept() -> None:
    refs: list[weakref.ref[Marker]] = []

    async def handler(request: web.Request) -> web.Response:
        current.set(marker := Marker())
        refs.append(weakref.ref(marker))
        if request.path == "/fail":
            raise LookupError
        return web.Response()

    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    async with session_to(app) as session:
        async with session.get("/"):
            pass
        with pytest.raises(LookupError):
            await session.get("/fail")
        for _ in range(20):
            await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in refs] == [None, None]


@pytest.mark.parametrize("lifespan", ["auto", "off"])
async def test_an_application_is_freed_when_it_is_unmounted(lifespan: str) -> None:
    app = hanging_app()
    app[MARKER] = marker = Marker()
    ref = weakref.ref(marker)
    del marker
    kept: list[object] = []
    async with (
        ASGIRoutingConnector({"app.internal": app}, lifespan=lifespan) as connector,  # type: ignore[arg-type]
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        response = await session.get("/")
        kept += [response, await response.read()]
        ws = await session.ws_connect("/chat")
        await ws.close()
        kept.append(ws)
        del app
        await connector.unmount("app.internal")
        gc.collect()
        assert ref() is None
