"""The same test, written with aioresponses, with aiointercept, and with this package.

Each class is a row of the table in ``docs/howto/from-aioresponses.md``; its docstring is the first column.
"""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from asgi_connector import ASGIRoutingConnector, Mount, Stub, UnmatchedRequestError, UnmountedHostError, faults
from asgi_connector._types import Message, Receive, Scope, Send
from tests.docs.pages import DOCS

from .conftest import HOST

BASE = f"http://{HOST}"
USER = f"{BASE}/users/1"
PAGE = DOCS / "howto" / "from-aioresponses.md"


async def get(session: aiohttp.ClientSession, url: str = USER, **settings: Any) -> tuple[int, str]:
    async with session.get(url, **settings) as response:
        return response.status, await response.text()


class TestBlock:
    """a block, a decorator"""

    async def test_aioresponses(self, aioresponses: Any, plain: aiohttp.ClientSession) -> None:
        async def function(inner: Any) -> tuple[int, str]:
            inner.get(USER, body="decorator")
            return await get(plain)

        decorated = aioresponses.aioresponses(param="inner")(function)
        assert await decorated() == (200, "decorator")
        with aioresponses.aioresponses() as mocked:
            mocked.get(USER, body="block")
            assert await get(plain) == (200, "block")

    async def test_aiointercept(self, aiointercept: Any, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, body="block")

        async def function(inner: Any) -> tuple[int, str]:
            inner.get(USER, body="decorator")
            async with aiohttp.ClientSession() as session:
                return await get(session)

        decorated = aiointercept.aiointercept(mock_external_urls=True, param="inner")(function)
        assert await decorated() == (200, "decorator")
        assert await get(plain) == (200, "block")

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", text="fixture")
        inner = Stub()
        inner.get("/users/1", text="block")
        async with connector.mounted(HOST, inner):
            assert await get(session) == (200, "block")
        assert await get(session) == (200, "fixture")

    async def test_here_in_a_session_that_the_code_makes_itself(
        self, connector: ASGIRoutingConnector, stub: Stub, plain: aiohttp.ClientSession
    ) -> None:
        stub.get("/users/1", text="intercepted")
        with connector.intercept():
            assert await get(plain) == (200, "intercepted")


class TestStartAndStop:
    """`start()`, `stop()`"""

    async def test_aioresponses(self, aioresponses: Any, plain: aiohttp.ClientSession) -> None:
        other = aioresponses.aioresponses()
        other.start()
        other.get(USER, body="started")
        assert await get(plain) == (200, "started")
        other.stop()

    async def test_aiointercept(self, aiointercept: Any, plain: aiohttp.ClientSession) -> None:
        mock = aiointercept.aiointercept(mock_external_urls=True)
        await mock.start()
        mock.get(USER, body="started")
        assert await get(plain) == (200, "started")
        await mock.stop()

    async def test_here(self, stub: Stub) -> None:
        stub.get("/users/1", text="started")
        connector = ASGIRoutingConnector({HOST: stub})
        async with aiohttp.ClientSession(connector=connector) as session:
            assert await get(session) == (200, "started")
        assert connector.closed


class TestMethods:
    """`get()`, `post()`, `put()`, `patch()`, `delete()`, `head()`, `options()`, `add()`"""

    METHODS = ("get", "post", "put", "patch", "delete", "head", "options")

    async def statuses(self, session: aiohttp.ClientSession) -> list[int]:
        statuses = []
        for method in (*self.METHODS, "propfind"):
            async with session.request(method, USER) as response:
                statuses.append(response.status)
        return statuses

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        for n, method in enumerate(self.METHODS):
            getattr(mocked, method)(USER, status=210 + n)
        mocked.add(USER, method="PROPFIND", status=217)
        assert await self.statuses(plain) == list(range(210, 218))

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        for n, method in enumerate(self.METHODS):
            getattr(intercepted, method)(USER, status=210 + n)
        intercepted.add(USER, method="PROPFIND", status=217)
        assert await self.statuses(plain) == list(range(210, 218))

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        for n, method in enumerate(self.METHODS):
            getattr(stub, method)("/users/1", status=210 + n)
        stub.on("PROPFIND", "/users/1", status=217)
        assert await self.statuses(session) == list(range(210, 218))


class TestPayload:
    """`payload=`, `json=`"""

    async def user(self, session: aiohttp.ClientSession) -> Any:
        async with session.get(USER) as response:
            assert response.content_type == "application/json"
            return await response.json()

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, payload={"name": "Ada"})
        assert await self.user(plain) == {"name": "Ada"}

    @pytest.mark.parametrize("name", ["payload", "json"])
    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession, name: str) -> None:
        intercepted.get(USER, **{name: {"name": "Ada"}})
        assert await self.user(plain) == {"name": "Ada"}

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", json={"name": "Ada"})
        assert await self.user(session) == {"name": "Ada"}


class TestBody:
    """`body=`, `content_type=`, `headers=`, `status=`"""

    async def photo(self, session: aiohttp.ClientSession) -> tuple[int, str, str, bytes]:
        async with session.get(USER) as response:
            return response.status, response.content_type, response.headers["ETag"], await response.read()

    EXPECTED = (203, "image/png", '"1"', b"\x89PNG")

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, status=203, body=b"\x89PNG", content_type="image/png", headers={"ETag": '"1"'})
        assert await self.photo(plain) == self.EXPECTED

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, status=203, body=b"\x89PNG", content_type="image/png", headers={"ETag": '"1"'})
        assert await self.photo(plain) == self.EXPECTED

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", status=203, body=b"\x89PNG", headers={"Content-Type": "image/png", "ETag": '"1"'})
        assert await self.photo(session) == self.EXPECTED


class TestReason:
    """`reason=`"""

    async def reason(self, session: aiohttp.ClientSession) -> str | None:
        async with session.get(USER) as response:
            return response.reason

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, status=404, reason="No Such User")
        assert await self.reason(plain) == "No Such User"

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, status=404, reason="No Such User")
        assert await self.reason(plain) == "No Such User"

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", status=404)
        assert await self.reason(session) == "Not Found"


class OwnResponse(aiohttp.ClientResponse):
    pass


class TestResponseClass:
    """`response_class=`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, response_class=OwnResponse)
        assert isinstance(await plain.get(USER), OwnResponse)

    async def test_here(self, stub: Stub, connector: ASGIRoutingConnector) -> None:
        stub.get("/users/1")
        async with (
            aiohttp.ClientSession(connector=connector, response_class=OwnResponse) as session,
            session.get(USER) as response,
        ):
            assert isinstance(response, OwnResponse)


class TestStreamedBody:
    """`body=` with an async iterator"""

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            yield piece

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, body=self.pieces())
        with pytest.raises(TypeError):
            await get(plain)

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, body=self.pieces())
        assert await get(plain) == (200, "onetwo")

    async def test_here(self, connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
        read = asyncio.Event()

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await read.wait()  # the client has the first piece while the response goes on
            await send({"type": "http.response.body", "body": b"two"})

        connector.mount("stream.internal", Mount(stream, lifespan="off"))
        async with session.get("http://stream.internal/") as response:
            assert await response.content.readany() == b"one"
            read.set()
            assert await response.content.readany() == b"two"


class TestPattern:
    """a pattern as the URL"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(re.compile(r"^http://users\.internal/users/\d+$"), body="a user", repeat=True)
        assert await get(plain) == (200, "a user")
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain, f"{BASE}/users/ada")

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(re.compile(r"^http://users\.internal/users/\d+$"), body="a user", repeat=True)
        assert await get(plain) == (200, "a user")
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain, f"{BASE}/users/ada")

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get(re.compile(r"/users/\d+"), text="a user")
        assert await get(session) == (200, "a user")
        with pytest.raises(UnmatchedRequestError):
            await get(session, f"{BASE}/users/ada")


class TestQuery:
    """a query, in any order"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(f"{USER}?a=1&b=2", body="found")
        assert await get(plain, params={"b": 2, "a": 1}) == (200, "found")
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain, params={"a": 1})

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(f"{USER}?a=1&b=2", body="found")
        assert await get(plain, params={"b": 2, "a": 1}) == (200, "found")
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain, params={"a": 1})

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", query={"a": 1, "b": 2}, text="found")
        assert await get(session, params={"b": 2, "a": 1}) == (200, "found")
        with pytest.raises(UnmatchedRequestError):
            await get(session, params={"a": 1})


class TestRequestBody:
    """an answer for one request body"""

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/users", request_json={"name": "Ada"}, status=201)
        stub.post("/users", request_json={"name": ""}, status=422)
        for name, status in [("", 422), ("Ada", 201)]:
            async with session.post(f"{BASE}/users", json={"name": name}) as response:
                assert response.status == status


class TestRepeat:
    """`repeat=`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, body="twice", repeat=2)
        assert [await get(plain) for _ in range(2)] == [(200, "twice")] * 2
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain)
        mocked.get(USER, body="always", repeat=True)
        assert [await get(plain) for _ in range(3)] == [(200, "always")] * 3

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, body="twice", repeat=2)
        assert [await get(plain) for _ in range(2)] == [(200, "twice")] * 2
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain)
        intercepted.get(f"{BASE}/always", body="always", repeat=True)
        assert [await get(plain, f"{BASE}/always") for _ in range(3)] == [(200, "always")] * 3

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", text="twice", times=2)
        stub.get("/always", text="always")
        assert [await get(session) for _ in range(2)] == [(200, "twice")] * 2
        with pytest.raises(UnmatchedRequestError, match="used up"):
            await get(session)
        assert [await get(session, f"{BASE}/always") for _ in range(3)] == [(200, "always")] * 3


class TestOrder:
    """several answers, in order"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, status=503)
        mocked.get(USER, body="here")
        assert [await get(plain) for _ in range(2)] == [(503, ""), (200, "here")]

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, status=503)
        intercepted.get(USER, body="here")
        assert [await get(plain) for _ in range(2)] == [(503, ""), (200, "here")]

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", status=503)
        stub.get("/users/1", text="here")
        assert [await get(session) for _ in range(2)] == [(503, ""), (200, "here")]


class TestCallback:
    """`callback=`, `CallbackResult`"""

    async def test_aioresponses(self, aioresponses: Any, mocked: Any, plain: aiohttp.ClientSession) -> None:
        async def answer(url: URL, **kwargs: Any) -> Any:
            return aioresponses.CallbackResult(status=201, body=f"{url.path} {kwargs['json']['name']}")

        mocked.post(USER, callback=answer)
        async with plain.post(USER, json={"name": "Ada"}) as response:
            assert (response.status, await response.text()) == (201, "/users/1 Ada")

    async def test_aiointercept(self, aiointercept: Any, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        async def answer(url: URL, **kwargs: Any) -> Any:
            return aiointercept.CallbackResult(status=201, body=f"{url.path} {kwargs['json']['name']}".encode())

        intercepted.post(USER, callback=answer)
        async with plain.post(USER, json={"name": "Ada"}) as response:
            assert (response.status, await response.text()) == (201, "/users/1 Ada")

    async def test_here(self, connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
        from fastapi import FastAPI, Request
        from fastapi.responses import PlainTextResponse

        users = FastAPI()

        @users.post("/users/{number}")
        async def answer(request: Request) -> PlainTextResponse:
            return PlainTextResponse(f"{request.url.path} {(await request.json())['name']}", 201)

        async with (
            connector.mounted(HOST, users),
            session.post(USER, json={"name": "Ada"}) as response,
        ):
            assert (response.status, await response.text()) == (201, "/users/1 Ada")


class TestException:
    """`exception=`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        error = LookupError("no index")
        mocked.get(USER, exception=error)
        mocked.get(USER, exception=aiohttp.ServerDisconnectedError())
        with pytest.raises(LookupError) as raised:
            await get(plain)
        assert raised.value is error
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(plain)

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, exception=True, repeat=True)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(plain)

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1")
        error = LookupError("no index")

        async def broken(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        async with connector.mounted(HOST, broken):
            with pytest.raises(LookupError) as raised:
                await get(session)
        assert raised.value is error
        with connector.inject(HOST, faults.Close()), pytest.raises(aiohttp.ServerDisconnectedError):
            await get(session)


class TestTimeout:
    """`timeout=`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, timeout=True)
        with pytest.raises(TimeoutError):
            await get(plain)

    async def test_aiointercept(self, intercepted: Any) -> None:
        with pytest.raises(TypeError, match="timeout"):
            intercepted.get(USER, timeout=True)

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1")
        with connector.inject(HOST, faults.Hang()), pytest.raises(aiohttp.SocketTimeoutError):
            await get(session, timeout=aiohttp.ClientTimeout(sock_read=0.01))
        with connector.inject(HOST, faults.Hang(on="connect")), pytest.raises(aiohttp.ConnectionTimeoutError):
            await get(session, timeout=aiohttp.ClientTimeout(connect=0.01))


class TestRedirects:
    """redirects"""

    async def moved(self, session: aiohttp.ClientSession) -> tuple[str, list[int]]:
        async with session.get(f"{BASE}/old") as response:
            return await response.text(), [each.status for each in response.history]

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(f"{BASE}/old", status=302, headers={"Location": USER}, repeat=True)
        mocked.get(USER, body="new")
        assert await self.moved(plain) == ("new", [302])
        assert (await get(plain, f"{BASE}/old", allow_redirects=False))[0] == 302

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(f"{BASE}/old", status=302, headers={"Location": USER}, repeat=True)
        intercepted.get(USER, body="new")
        assert await self.moved(plain) == ("new", [302])
        assert (await get(plain, f"{BASE}/old", allow_redirects=False))[0] == 302

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/old", status=302, headers={"Location": USER})
        stub.get("/users/1", text="new")
        assert await self.moved(session) == ("new", [302])
        assert (await get(session, f"{BASE}/old", allow_redirects=False))[0] == 302


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """The URL of a server that is not mocked."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="real")

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


class TestPassthrough:
    """`passthrough=`"""

    async def test_aioresponses(self, aioresponses: Any, server: str, plain: Any) -> None:
        with aioresponses.aioresponses(passthrough=[server]) as inner:
            inner.get(USER, body="mocked")
            assert await get(plain, server) == (200, "real")
            assert await get(plain) == (200, "mocked")

    async def test_aiointercept(self, aiointercept: Any, server: str, plain: Any) -> None:
        async with aiointercept.aiointercept(mock_external_urls=True, passthrough=["127.0.0.1"]) as mock:
            mock.get(USER, body="mocked")
            assert await get(plain, server) == (200, "real")
            assert await get(plain) == (200, "mocked")

    async def test_here(self, stub: Stub, server: str) -> None:
        stub.get("/users/1", text="mocked")
        connector = ASGIRoutingConnector({HOST: stub}, fallback=aiohttp.TCPConnector())
        async with aiohttp.ClientSession(connector=connector) as session:
            assert await get(session, server) == (200, "real")
            assert await get(session) == (200, "mocked")

    async def test_here_in_a_session_that_the_code_makes_itself(
        self, connector: ASGIRoutingConnector, stub: Stub, server: str, plain: aiohttp.ClientSession
    ) -> None:
        stub.get("/users/1", text="mocked")
        with connector.intercept(passthrough=["127.0.0.1"]):
            assert await get(plain, server) == (200, "real")
            assert await get(plain) == (200, "mocked")


class TestPassthroughUnmatched:
    """`passthrough_unmatched=`"""

    async def test_aioresponses(self, aioresponses: Any, server: str, plain: Any) -> None:
        with aioresponses.aioresponses(passthrough_unmatched=True) as inner:
            inner.get(f"{server}mocked", body="mocked")
            assert await get(plain, f"{server}mocked") == (200, "mocked")
            assert await get(plain, f"{server}other") == (200, "real")

    async def test_here(self, stub: Stub, server: str) -> None:
        """Any other host passes through; of a mounted host nothing does."""
        stub.get("/users/1", text="mocked")
        connector = ASGIRoutingConnector({HOST: stub}, fallback=aiohttp.TCPConnector())
        async with aiohttp.ClientSession(connector=connector) as session:
            assert await get(session, server) == (200, "real")
            with pytest.raises(UnmatchedRequestError):
                await get(session, f"{BASE}/other")

    async def test_here_in_a_session_that_the_code_makes_itself(
        self, connector: ASGIRoutingConnector, server: str, plain: aiohttp.ClientSession
    ) -> None:
        with connector.intercept(passthrough=True):
            assert await get(plain, server) == (200, "real")
        with connector.intercept(), pytest.raises(UnmountedHostError):
            await get(plain, server)


class TestUnmatched:
    """a request without an answer"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        with pytest.raises(aiohttp.ClientConnectionError, match=f"Connection refused: GET {USER}"):
            await get(plain)

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(f"{BASE}/other")
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(plain)

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/2")
        with pytest.raises(UnmatchedRequestError, match=re.escape("GET '/users/2': path is '/users/1'")):
            await get(session)
        with pytest.raises(UnmountedHostError, match=r"Did you mean 'users\.internal'\?"):
            await get(session, "http://user.internal/")
        assert stub.problems() == ["never asked for: GET '/users/2'", f"not answered: GET {USER}"]


class TestHistory:
    """`requests`, `ordered_requests`, `last_request`, `call_count`"""

    async def ask(self, session: aiohttp.ClientSession) -> None:
        async with session.post(USER, json={"name": "Ada"}, headers={"X-Id": "7"}) as response:
            assert response.status == 200

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.post(USER)
        await self.ask(plain)
        (call,) = mocked.requests["POST", URL(USER)]
        assert call.kwargs["json"] == {"name": "Ada"}
        assert call.kwargs["headers"]["X-Id"] == "7"

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        answer = intercepted.post(USER)
        await self.ask(plain)
        (request,) = intercepted.requests["POST", URL(USER)]
        assert request.kwargs["json"] == {"name": "Ada"}
        assert request.headers["X-Id"] == "7"
        assert intercepted.last_request is request
        assert [each for _, each in intercepted.ordered_requests] == [request]
        assert (answer.call_count, intercepted.call_count) == (1, 1)

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/users/1")
        with connector.record(bodies=True) as journal:
            await self.ask(session)
        (exchange,) = journal
        assert (exchange.method, exchange.path) == ("POST", "/users/1")
        assert exchange.request.body == b'{"name": "Ada"}'
        assert exchange.request.headers["X-Id"] == "7"
        assert len(journal.select(path="/users/1")) == 1


class TestAssertions:
    """`assert_called()`, `assert_not_called()`, `assert_called_once()`, `assert_any_call()`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER)
        mocked.assert_not_called()
        await get(plain)
        mocked.assert_called()
        mocked.assert_called_once()
        mocked.assert_any_call(USER)
        with pytest.raises(AssertionError):
            mocked.assert_any_call(f"{BASE}/users/2")

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER)
        intercepted.assert_not_called()
        await get(plain)
        intercepted.assert_called()
        intercepted.assert_called_once()
        intercepted.assert_any_call(USER)
        with pytest.raises(AssertionError):
            intercepted.assert_any_call(f"{BASE}/users/2")

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1")
        with connector.record() as journal:
            journal.assert_not_called()
            await get(session)
            journal.assert_called()
            journal.assert_called(times=1)
            journal.assert_called(HOST, method="GET", path="/users/1")
            with pytest.raises(AssertionError):
                journal.assert_called(HOST, path="/users/2")


class TestAssertCalledWith:
    """`assert_called_with()`, `assert_called_once_with()`"""

    async def ask(self, session: aiohttp.ClientSession) -> None:
        async with session.post(USER, params={"a": "1"}, json={"name": "Ada"}, headers={"X-Id": "7"}):
            pass

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.post(f"{USER}?a=1")
        await self.ask(plain)
        given: dict[str, Any] = {"params": {"a": "1"}, "json": {"name": "Ada"}, "headers": {"X-Id": "7"}}
        mocked.assert_called_with(USER, method="POST", **given)
        mocked.assert_called_once_with(USER, method="POST", **given)
        with pytest.raises(AssertionError):
            mocked.assert_called_with(USER, method="POST", **{**given, "json": {}})

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.post(f"{USER}?a=1")
        await self.ask(plain)
        given: dict[str, Any] = {"params": {"a": "1"}, "json": {"name": "Ada"}, "headers": {"X-Id": "7"}}
        intercepted.assert_called_with(USER, method="POST", **given)
        intercepted.assert_called_once_with(USER, method="POST", data='{"name": "Ada"}', params={"a": "1"})
        with pytest.raises(AssertionError):
            intercepted.assert_called_with(USER, method="POST", **{**given, "json": {}})
        with pytest.raises(AssertionError):
            intercepted.assert_called_with(USER, method="POST", **given, strict_headers=True)

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/users/1", query={"a": 1}, request_json={"name": "Ada"})  # or any other request is an error
        with connector.record() as journal:
            await self.ask(session)
        journal.assert_called(method="POST", where=lambda exchange: exchange.request.headers["X-Id"] == "7", times=1)
        with pytest.raises(AssertionError):
            journal.assert_called(where=lambda exchange: exchange.request.headers["X-Id"] == "8")
        stub.assert_all_used()


class TestClear:
    """`clear()`"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, repeat=True)
        mocked.clear()
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(plain)

    async def test_aiointercept(self, intercepted: Any) -> None:
        intercepted.get(USER, repeat=True)
        intercepted.clear()
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectionError):
                await get(session)

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1")
        connector.mount(HOST, Stub())
        with pytest.raises(UnmatchedRequestError, match="this stub has no answers"):
            await get(session)


class TestRaiseForStatus:
    """`raise_for_status`, a closed session"""

    async def refused(self, session: aiohttp.ClientSession) -> None:
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(USER, raise_for_status=True)
        await session.close()
        with pytest.raises(RuntimeError, match="Session is closed"):
            await session.get(USER)

    async def test_aioresponses(self, mocked: Any) -> None:
        mocked.get(USER, status=403)
        await self.refused(aiohttp.ClientSession())

    async def test_aiointercept(self, intercepted: Any) -> None:
        intercepted.get(USER, status=403)
        await self.refused(aiohttp.ClientSession())

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub) -> None:
        stub.get("/users/1", status=403)
        await self.refused(aiohttp.ClientSession(connector=connector))


class TestServerURL:
    """`server_url`, `server_host`, `server_port`, `mock_external_urls=`"""

    async def test_aiointercept(self, aiointercept: Any, plain: aiohttp.ClientSession) -> None:
        async with aiointercept.aiointercept() as mock:
            assert mock.server_url == f"http://{mock.server_host}:{mock.server_port}"
            mock.get(f"{mock.server_url}/users/1", body="by a socket")
            assert await get(plain, f"{mock.server_url}/users/1") == (200, "by a socket")

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", text="in memory")
        assert await get(session) == (200, "in memory")


class TestFixtures:
    """`aiointercept_mock`, `aiointercept_server`"""

    async def test_aiointercept(self, aiointercept: Any, request: pytest.FixtureRequest) -> None:
        assert request.config.pluginmanager.has_plugin("aiointercept")

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        """The fixtures of this folder are these few lines: see ``conftest.py``."""
        stub.get("/users/1", text="by a fixture")
        assert await get(session) == (200, "by a fixture")


# What only real bytes show.


class TestHeadersAsSent:
    """headers as sent"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.post(USER)
        await plain.post(USER, json={}, headers={"X-Id": "a\r\nb"})  # aiohttp refuses to send this
        (call,) = mocked.requests["POST", URL(USER)]
        assert sorted(call.kwargs["headers"]) == ["X-Id"]

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.post(USER)
        with pytest.raises(ValueError, match="header injection"):
            await plain.post(USER, json={}, headers={"X-Id": "a\r\nb"})
        await plain.post(USER, json={})
        assert intercepted.last_request.headers["Content-Type"] == "application/json"

    async def test_here(self, connector: ASGIRoutingConnector, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/users/1")
        with connector.record() as journal:
            with pytest.raises(ValueError, match="header injection"):
                await session.post(USER, json={}, headers={"X-Id": "a\r\nb"})
            await session.post(USER, json={})
        assert journal[-1].request.headers["Content-Type"] == "application/json"
        assert journal[-1].request.headers["Host"] == HOST


class TestUploads:
    """uploads"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.post(USER)
        await plain.post(USER, json=object())  # nothing is serialised
        mocked.assert_called()

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.post(USER)
        with pytest.raises(TypeError, match="not JSON serializable"):
            await plain.post(USER, json=object())

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/users/1")
        with pytest.raises(TypeError, match="not JSON serializable"):
            await session.post(USER, json=object())


class TestMethodOfRedirect:
    """the method after a 307"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.post(f"{BASE}/old", status=307, headers={"Location": USER})
        mocked.get(USER, body="a GET")
        async with plain.post(f"{BASE}/old") as response:
            assert await response.text() == "a GET"

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.post(f"{BASE}/old", status=307, headers={"Location": USER})
        intercepted.post(USER, body="a POST")
        async with plain.post(f"{BASE}/old") as response:
            assert await response.text() == "a POST"

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.post("/old", status=307, headers={"Location": USER})
        stub.post("/users/1", text="a POST")
        async with session.post(f"{BASE}/old") as response:
            assert await response.text() == "a POST"


class TestCookies:
    """cookies of the session"""

    async def cookies(self, session: aiohttp.ClientSession) -> list[str]:
        await session.get(USER)
        return [cookie.key for cookie in session.cookie_jar]

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, headers={"Set-Cookie": "id=7"})
        assert await self.cookies(plain) == []

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER, headers={"Set-Cookie": "id=7"})
        assert await self.cookies(plain) == ["id"]

    async def test_here(self, stub: Stub, session: aiohttp.ClientSession) -> None:
        stub.get("/users/1", headers={"Set-Cookie": "id=7"})
        assert await self.cookies(session) == ["id"]


class TestWebSockets:
    """WebSockets"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        mocked.get(USER, status=101, headers={"Upgrade": "websocket", "Connection": "upgrade"})
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await plain.ws_connect(USER)

    async def test_aiointercept(self, intercepted: Any, plain: aiohttp.ClientSession) -> None:
        intercepted.get(USER)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await plain.ws_connect(USER)

    async def test_here(self, connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
        async def echo(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] != "websocket.disconnect":
                if message["type"] == "websocket.receive":
                    await send({"type": "websocket.send", "text": message["text"]})

        connector.mount("chat.internal", Mount(echo, lifespan="off"))
        async with session.ws_connect("http://chat.internal/") as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "hello"


class TestCancelledRequests:
    """a request that is cancelled"""

    async def test_aioresponses(self, mocked: Any, plain: aiohttp.ClientSession) -> None:
        """There is no server: the callback runs in the client's task, and is cancelled with it."""
        called = asyncio.Event()
        tasks = []

        async def answer(url: URL, **kwargs: Any) -> None:
            tasks.append(asyncio.current_task())
            called.set()
            await asyncio.Event().wait()

        mocked.get(USER, callback=answer)
        request = asyncio.create_task(get(plain))
        await called.wait()
        assert tasks == [request]
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    async def test_aiointercept(self, intercepted: Any) -> None:
        called, cancelled = asyncio.Event(), asyncio.Event()

        async def answer(url: URL, **kwargs: Any) -> None:
            called.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        intercepted.get(USER, callback=answer)
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(get(session))
            await called.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        await cancelled.wait()

    async def test_here(self, connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
        told: asyncio.Queue[Message] = asyncio.Queue()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await told.put(await receive())
            await told.put(await receive())

        connector.mount("slow.internal", Mount(slow, lifespan="off"))
        request = asyncio.create_task(get(session, "http://slow.internal/"))
        assert (await told.get())["type"] == "http.request"
        request.cancel()
        assert (await told.get())["type"] == "http.disconnect"


# The page.

ROWS = [cls for name, cls in list(globals().items()) if name.startswith("Test") and cls is not TestServer]


def test_each_row_of_the_page_is_tested_and_each_test_has_a_row() -> None:
    rows = re.findall(r"^\| (?!feature |what is )([^|]+?) \| ", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [cls.__doc__ for cls in ROWS]


@pytest.mark.parametrize("library", ["aioresponses", "aiointercept"])
def test_the_page_names_everything_of_the_library(library: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue({"aioresponses": "aioresponses_module"}.get(library, library))
    mock = getattr(module, library)
    names = {name for name in vars(mock) if not name.startswith("_") and name not in ("match", "is_exception")}
    names |= inspect.signature(mock.add).parameters.keys() - {"self", "url", "method"}
    names |= inspect.signature(mock).parameters.keys() - {"kwargs", "param"}
    page = PAGE.read_text("utf-8")
    assert [name for name in sorted(names) if not re.search(rf"`{name}(\(\)|=)?`", page)] == []
