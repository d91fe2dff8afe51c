"""Real clients, each over a connector: which failures of an app they pass on, and what they close."""

import asyncio
import gc
import importlib
import socket
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from json import dumps, loads
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_connector import ASGIRoutingConnector, UnmountedHostError
from tests.conftest import session_to


class App:
    """A service that gives every request the same answer, or raises. It records its requests and its lifespan."""

    def __init__(self, answer: Any = None, *, error: BaseException | None = None) -> None:
        self.answer, self.error = answer, error
        self.calls: list[tuple[str, str, str, bytes]] = []
        self.lifespan: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ["startup", "shutdown"]:
                await receive()
                self.lifespan.append(event)
                await send({"type": f"lifespan.{event}.complete"})
            return
        request = Request(scope, receive)
        self.calls.append((request.method, request.url.netloc, request.url.path, await request.body()))
        if self.error is not None:
            raise self.error
        answer = self.answer(request) if isinstance(self.answer, FunctionType) else self.answer
        response = answer if isinstance(answer, Response) else JSONResponse(answer)
        await response(scope, receive, send)


def chain(error: BaseException | None) -> list[BaseException]:
    """An exception and its chain of causes and contexts."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def lent(connector: ASGIRoutingConnector) -> ASGIRoutingConnector:
    """A connector for a client that closes it. It falls back to a connector that stays open."""
    return ASGIRoutingConnector(fallback=connector, fallback_owner=False)


async def test_a_connector_that_is_lent_closes_without_the_one_behind_it() -> None:
    app = App("here")
    async with ASGIRoutingConnector({"app.internal": app}) as shared:
        for _ in range(2):
            connector = lent(shared)
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get("http://app.internal/") as response:
                    assert await response.json() == "here"
                with pytest.raises(UnmountedHostError, match=r"Did you mean 'app\.internal'"):
                    await session.get("http://api.internal/")
            assert (connector.closed, shared.closed) == (True, False)
        assert app.lifespan == ["startup"]
    assert app.lifespan == ["startup", "shutdown"]


# Slack


@pytest.fixture
def slack() -> Any:
    return pytest.importorskip("slack_sdk.web.async_client", reason="slack_sdk is not installed").AsyncWebClient


async def test_slack_sdk_raises_what_the_app_raises_and_leaves_the_session_open(slack: Any) -> None:
    app = App(error=LookupError("no such channel"))
    async with session_to({"slack.com": app}) as session:
        with pytest.raises(LookupError) as caught:
            await slack(token="xoxb", session=session).chat_postMessage(channel="C1", text="hello")
        assert caught.value is app.error
        assert not session.closed
    assert [call[:3] for call in app.calls] == [("POST", "slack.com", "/api/chat.postMessage")]


@pytest.mark.parametrize("retries", [True, False])
async def test_slack_sdk_sends_again_what_it_takes_for_a_broken_connection(slack: Any, retries: bool) -> None:
    handlers = pytest.importorskip("slack_sdk.http_retry.builtin_async_handlers")
    at_once = pytest.importorskip("slack_sdk.http_retry.builtin_interval_calculators").FixedValueRetryIntervalCalculator
    retry = handlers.AsyncConnectionErrorRetryHandler(interval_calculator=at_once(fixed_internal=0))
    app = App(error=ConnectionResetError("the app's own database"))
    async with session_to({"slack.com": app}) as session:
        client = slack(session=session, retry_handlers=[retry] if retries else [])
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await client.api_test()
        assert caught.value.__cause__ is app.error
    assert len(app.calls) == 1 + retries


async def test_slack_sdk_calls_run_side_by_side(slack: Any) -> None:
    app = App(lambda request: {"ok": True, "user": request.query_params.get("user")})
    async with session_to({"slack.com": app}) as session:
        client = slack(session=session)
        names = [f"U{number}" for number in range(10)]
        answers = await asyncio.gather(*(client.api_call("users.info", params={"user": name}) for name in names))
        assert [answer["user"] for answer in answers] == names


async def test_slack_sdk_with_a_session_that_is_closed_goes_to_the_real_network(slack: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        app = App({"ok": True})
        async with session_to({"127.0.0.1": app}) as session:
            client = slack(session=session, base_url=base_url, retry_handlers=[])
            assert (await client.api_test())["ok"]
            await session.close()
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.api_test()
    assert len(app.calls) == 1


# GraphQL


@pytest.fixture
def gql() -> Any:
    return pytest.importorskip("gql", reason="gql is not installed")


def over_http(connector: aiohttp.BaseConnector, **settings: Any) -> Any:
    transport = pytest.importorskip("gql.transport.aiohttp").AIOHTTPTransport
    return transport("http://app.internal/", client_session_args={"connector": connector, **settings})


async def test_gql_wraps_what_the_app_raises_and_closes_the_connector(gql: Any) -> None:
    app = App(error=ValueError("no such schema"))
    connector = ASGIRoutingConnector({"app.internal": app})
    errors = pytest.importorskip("gql.transport.exceptions")
    with pytest.raises(errors.TransportConnectionFailed, match="no such schema") as caught:
        async with gql.Client(transport=over_http(connector)) as client:
            await client.execute(gql.gql("{ hello }"))
    assert caught.value.__cause__ is app.error
    assert connector.closed
    assert len(app.calls) == 1
    assert app.lifespan == ["startup", "shutdown"]


async def test_gql_runs_queries_side_by_side_over_a_connector_that_is_lent(gql: Any) -> None:
    app = App(lambda request: {"data": {"path": request.url.path}})
    async with ASGIRoutingConnector({"app.internal": app}) as shared:
        for _ in range(2):
            async with gql.Client(transport=over_http(lent(shared))) as client:
                answers = await asyncio.gather(*(client.execute(gql.gql("{ path }")) for _ in range(10)))
                assert answers == [{"path": "/"}] * 10
        assert not shared.closed
    assert len(app.calls) == 20


async def test_gql_that_does_not_own_the_connector_leaves_its_session_unclosed(gql: Any) -> None:
    async with ASGIRoutingConnector({"app.internal": App({"data": {"n": 1}})}) as connector:
        transport = over_http(connector, connector_owner=False)
        async with gql.Client(transport=transport) as client:
            assert await client.execute(gql.gql("{ n }")) == {"n": 1}
            session = transport.session
        assert not session.closed  # and would warn
        await session.close()
        assert not connector.closed


async def test_gql_loses_what_an_app_raises_in_a_websocket_but_the_loop_does_not(gql: Any) -> None:
    transports = pytest.importorskip("gql.transport.aiohttp_websockets")
    errors = pytest.importorskip("gql.transport.exceptions")
    error = LookupError("no such schema")
    seen = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
        await receive()
        raise error

    async with session_to(app) as session:
        transport = transports.AIOHTTPWebsocketsTransport("ws://app.internal/", session=session)
        with pytest.raises(errors.TransportConnectionFailed) as caught:
            async with gql.Client(transport=transport):
                raise AssertionError
        assert error not in chain(caught.value)
        assert seen == [error]
        assert not session.closed


# Socket.IO. More tests of it are among those of WebSockets.


@pytest.fixture
def socketio() -> Any:
    return pytest.importorskip("socketio", reason="python-socketio is not installed")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_socketio_raises_what_the_app_raises(socketio: Any, transport: str) -> None:
    error = LookupError("no such room")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with session_to(app) as session:
        client = socketio.AsyncClient(http_session=session, handle_sigint=False, reconnection=False)
        with pytest.raises(LookupError) as caught:
            await client.connect("http://app.internal", transports=[transport])
        assert caught.value is error
        assert not session.closed


# fsspec


@pytest.fixture
def http_file_system() -> Any:
    module = pytest.importorskip("fsspec.implementations.http", reason="fsspec is not installed")
    return module.HTTPFileSystem


def files(app: Any) -> Any:
    async def get_client(**settings: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=ASGIRoutingConnector({"files.internal": app}), **settings)

    return get_client


async def test_fsspec_works_in_a_loop_and_a_thread_of_its_own_and_closes(http_file_system: Any) -> None:
    app = App(lambda request: PlainTextResponse(request.url.path))
    paths = [f"/{number}" for number in range(10)]

    def work() -> None:
        fs = http_file_system(get_client=files(app), skip_instance_cache=True)
        found = fs.cat([f"http://files.internal{path}" for path in paths])
        assert found == {f"http://files.internal{path}": path.encode() for path in paths}
        session = fs._session
        assert app.lifespan == ["startup"]
        del fs
        gc.collect()
        assert session.closed

    await asyncio.to_thread(work)
    assert app.lifespan == ["startup", "shutdown"]


async def test_fsspec_reads_ranges_of_a_file(http_file_system: Any, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)) * 400)
    app = App(lambda request: FileResponse(file))

    def work() -> None:
        fs = http_file_system(get_client=files(app), skip_instance_cache=True)
        with fs.open("http://files.internal/data", block_size=1000) as opened:
            assert opened.size == 102_400
            opened.seek(51_200)
            assert opened.read(256) == bytes(range(256))
        assert fs.info("http://files.internal/data")["size"] == 102_400
        with pytest.raises(FileNotFoundError):
            http_file_system(get_client=files(App(Response(status_code=404))), skip_instance_cache=True).cat(
                "http://files.internal/data"
            )

    await asyncio.to_thread(work)


async def test_fsspec_raises_what_the_app_raises(http_file_system: Any) -> None:
    app = App(error=LookupError("no such disk"))
    url = "http://files.internal/data"

    def work() -> None:
        fs = http_file_system(get_client=files(app), skip_instance_cache=True)
        with pytest.raises(LookupError) as caught:
            fs.cat(url)
        assert caught.value is app.error
        with pytest.raises(FileNotFoundError) as not_found:
            fs.info(url)
        assert not_found.value.__cause__ is app.error
        assert not fs.exists("http://nowhere.internal/")
        with pytest.raises(UnmountedHostError):
            fs.cat("http://nowhere.internal/")

    await asyncio.to_thread(work)


async def test_fsspec_in_the_loop_of_the_caller_leaves_its_session_to_him(http_file_system: Any) -> None:
    app = App("here")
    async with ASGIRoutingConnector({"files.internal": app}) as connector:
        settings = {"connector": connector, "connector_owner": False}
        fs = http_file_system(asynchronous=True, client_kwargs=settings, skip_instance_cache=True)
        session = await fs.set_session()
        contents = await asyncio.gather(*(fs._cat_file("http://files.internal/") for _ in range(10)))
        assert contents == [b'"here"'] * 10
        del fs
        gc.collect()
        assert not session.closed
        await session.close()
        assert not connector.closed


# aiobotocore


@asynccontextmanager
async def s3(apps: dict[str, Any], made: list[Any] | None = None, **settings: Any) -> AsyncIterator[Any]:
    """aiobotocore's client for S3 at ``s3.internal``. The connectors that it makes are recorded."""
    reason = "aiobotocore is not installed"
    http_session: Any = pytest.importorskip("aiobotocore.httpsession", reason=reason).AIOHTTPSession
    config: Any = pytest.importorskip("aiobotocore.config").AioConfig
    noted = [] if made is None else made

    class InProcess(http_session):  # type: ignore[misc] # of an optional package, so known only when the test runs
        async def _create_connector(self, proxy_url: str | None) -> aiohttp.BaseConnector:
            noted.append(ASGIRoutingConnector(apps))
            return noted[-1]  # type: ignore[no-any-return] # its base class is not known to the type checker

    session = pytest.importorskip("aiobotocore.session").get_session()
    async with session.create_client(
        "s3",
        endpoint_url=settings.pop("endpoint_url", "http://s3.internal"),
        region_name="eu-west-1",
        aws_access_key_id="fake",
        aws_secret_access_key="fake",
        config=config(http_session_cls=InProcess, retries={"max_attempts": 0}, **settings),
    ) as client:
        yield client


async def test_aiobotocore_finds_a_bucket_at_a_host_of_its_own_and_closes_the_connector() -> None:
    app, made = App(Response()), list[Any]()
    async with s3({"*.s3.internal": app}, made, s3={"addressing_style": "virtual"}) as client:
        bodies = [str(number).encode() for number in range(10)]
        await asyncio.gather(*(client.put_object(Bucket="letters", Key="ada", Body=body) for body in bodies))
        assert not made[0].closed
    assert sorted(app.calls) == [("PUT", "letters.s3.internal", "/ada", body) for body in bodies]
    assert [connector.closed for connector in made] == [True]
    assert app.lifespan == ["startup", "shutdown"]


async def test_aiobotocore_sends_chunks_with_a_checksum_over_https() -> None:
    app = App(Response())
    async with s3({"s3.internal": app}, endpoint_url="https://s3.internal") as client:
        await client.put_object(Bucket="letters", Key="ada", Body=b"dear Mr Babbage")
    assert app.calls[0][3].startswith(b"f\r\ndear Mr Babbage\r\n0\r\nx-amz-checksum-")


@pytest.mark.parametrize(
    ("error", "wrapped"),
    [
        (LookupError("no such disk"), "HTTPClientError"),
        (ConnectionResetError("the app's own database"), "EndpointConnectionError"),
    ],
    ids=["an error", "an OSError"],
)
async def test_aiobotocore_wraps_what_the_app_raises(error: Exception, wrapped: str) -> None:
    app = App(error=error)
    exceptions = pytest.importorskip("botocore.exceptions", reason="aiobotocore is not installed")
    async with s3({"s3.internal": app}) as client:
        with pytest.raises(getattr(exceptions, wrapped)) as caught:
            await client.get_object(Bucket="letters", Key="ada")
        assert caught.value.__cause__ is None
        assert chain(caught.value)[-1] is error
    assert len(app.calls) == 1
    async with s3({}) as client:
        with pytest.raises(exceptions.EndpointConnectionError) as unmounted:
            await client.list_buckets()
        assert isinstance(unmounted.value.__context__, UnmountedHostError)


# Elasticsearch


@asynccontextmanager
async def elasticsearch(connector: ASGIRoutingConnector, owner: bool = False, **settings: Any) -> AsyncIterator[Any]:
    module = pytest.importorskip("elasticsearch", reason="elasticsearch is not installed")
    node: Any = pytest.importorskip("elastic_transport").AiohttpHttpNode

    class InProcess(node):  # type: ignore[misc] # of an optional package, as above
        def _create_aiohttp_session(self) -> None:
            self._loop = asyncio.get_running_loop()
            self.session = aiohttp.ClientSession(connector=connector, connector_owner=owner)

    async with module.AsyncElasticsearch("http://elastic.internal:9200", node_class=InProcess, **settings) as client:
        yield client


@pytest.mark.parametrize("owner", [True, False])
async def test_elasticsearch_closes_its_session(owner: bool) -> None:
    headers = {"x-elastic-product": "Elasticsearch"}
    app = App(lambda request: JSONResponse({"_id": request.url.path, "found": True}, headers=headers))
    async with ASGIRoutingConnector({"elastic.internal:9200": app}) as connector:
        async with elasticsearch(connector, owner) as client:
            found = await asyncio.gather(*(client.get(index="books", id=str(number)) for number in range(10)))
            assert [answer["_id"] for answer in found] == [f"/books/_doc/{number}" for number in range(10)]
        assert connector.closed is owner


async def test_elasticsearch_wants_to_see_that_it_is_elasticsearch() -> None:
    async with ASGIRoutingConnector({"elastic.internal": App({})}) as connector, elasticsearch(connector) as client:
        with pytest.raises(pytest.importorskip("elasticsearch").UnsupportedProductError):
            await client.info()


async def test_elasticsearch_raises_what_the_app_raises_if_it_is_built_in() -> None:
    app = App(error=LookupError("no such index"))
    async with ASGIRoutingConnector({"elastic.internal": app}) as connector, elasticsearch(connector) as client:
        with pytest.raises(LookupError) as caught:
            await client.info()
        assert caught.value is app.error
    assert len(app.calls) == 1


@pytest.mark.parametrize("max_retries", [0, 3])
async def test_elasticsearch_wraps_other_errors_and_sends_again(max_retries: int) -> None:
    class OwnError(Exception):
        pass

    app = App(error=OwnError("no such index"))
    async with (
        ASGIRoutingConnector({"elastic.internal": app}) as connector,
        elasticsearch(connector, max_retries=max_retries) as client,
    ):
        with pytest.raises(pytest.importorskip("elasticsearch").ConnectionError) as caught:
            await client.info()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is app.error
        assert len(app.calls) == 1 + max_retries


# Discord


@pytest.fixture
def discord() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
        return pytest.importorskip("discord", reason="discord.py is not installed")


def user(key: str, name: str) -> dict[str, Any]:
    return {"id": key, "username": name, "discriminator": "0", "avatar": None, "global_name": name}


ME = user("1", "engine") | {"bot": True}
APPLICATION = {
    "id": "2",
    "name": "engine",
    "flags": 0,
    "description": "",
    "icon": None,
    "rpc_origins": [],
    "bot_public": False,
    "bot_require_code_grant": False,
    "owner": user("3", "ada"),
    "verify_key": "",
    "team": None,
}


def discord_api(request: Request) -> Any:
    match request.url.path.removeprefix("/api/v10").split("/")[1:]:
        case ["users", "@me"]:
            return ME
        case ["oauth2", "applications", "@me"]:
            return APPLICATION
        case ["users", key]:
            return user(key, f"user {key}")
        case ["gateway", "bot"]:
            limit = {"total": 1, "remaining": 1, "reset_after": 0, "max_concurrency": 1}
            return {"url": "wss://gateway.discord.gg", "shards": 1, "session_start_limit": limit}
    return JSONResponse({"message": "?"}, 404)


async def test_discord_py_closes_the_connector_and_fetches_side_by_side(discord: Any) -> None:
    app = App(discord_api)
    connector = ASGIRoutingConnector({"discord.com": app})
    async with discord.Client(intents=discord.Intents.none(), connector=connector) as client:
        await client.login("fake")
        users = await asyncio.gather(*(client.fetch_user(number) for number in range(10, 20)))
        assert [found.name for found in users] == [f"user {number}" for number in range(10, 20)]
        with pytest.raises(discord.NotFound):
            await client.fetch_guild(1)
    assert connector.closed
    assert app.lifespan == ["startup", "shutdown"]


async def test_discord_py_raises_what_the_app_raises(discord: Any) -> None:
    app = App(error=LookupError("no such user"))
    connector = ASGIRoutingConnector({"discord.com": app})
    async with discord.Client(intents=discord.Intents.none(), connector=connector) as client:
        with pytest.raises(LookupError) as caught:
            await client.login("fake")
        assert caught.value is app.error
    assert len(app.calls) == 1
    assert connector.closed


def compressing_stream(kind: str) -> Callable[[bytes], bytes]:
    """The codec that compresses the messages of a gateway. discord.py asks for zstd where Python has it, since 3.14."""
    if kind == "zlib-stream":
        stream = zlib.compressobj()
        return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert kind == "zstd-stream"
    zstd = importlib.import_module("compression.zstd").ZstdCompressor()
    return lambda data: cast(bytes, zstd.compress(data, mode=zstd.FLUSH_BLOCK))


async def test_a_bot_of_discord_py_gets_ready_over_the_gateway(discord: Any) -> None:
    identified = asyncio.get_running_loop().create_future()
    closed = asyncio.get_running_loop().create_future()

    async def gateway(websocket: WebSocket) -> None:
        await websocket.accept()
        compress = compressing_stream(websocket.query_params["compress"])

        async def send(message: dict[str, Any]) -> None:
            await websocket.send_bytes(compress(dumps({"s": None, "t": None, **message}).encode()))

        await send({"op": 10, "d": {"heartbeat_interval": 40_000}})
        try:
            while True:
                message = loads(await websocket.receive_text())
                if message["op"] == 2:
                    identified.set_result(message["d"]["token"])
                    ready = {"v": 10, "user": ME, "guilds": [], "session_id": "s", "resume_gateway_url": "wss://r"}
                    ready["application"] = {"id": "2", "flags": 0}
                    await send({"op": 0, "s": 1, "t": "READY", "d": ready})
        except WebSocketDisconnect as disconnect:
            closed.set_result(disconnect.code)

    connector = ASGIRoutingConnector(
        {
            "discord.com": App(discord_api),
            "gateway.discord.gg": Starlette(routes=[WebSocketRoute("/", gateway)]),
        }
    )
    settings = {"intents": discord.Intents(guilds=True), "guild_ready_timeout": 0}
    async with discord.Client(connector=connector, **settings) as client:
        running = asyncio.create_task(client.start("fake"))
        await asyncio.wait({identified, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # raises the exception that it failed with
        await client.wait_until_ready()
        assert client.user.name == "engine"
        assert identified.result() == "fake"
        await client.close()
        await running
    assert await closed in {1000, 4000}  # two tasks of the client close it, each with its own code
    assert connector.closed


# OpenAI


@asynccontextmanager
async def openai(connector: ASGIRoutingConnector, httpx: str = "httpx") -> AsyncIterator[Any]:
    module = pytest.importorskip("openai", reason="openai is not installed")
    transports = "httpx_aiohttp" if httpx == "httpx" else "httpx_aiohttp.httpx2"
    transport = pytest.importorskip(transports, reason="httpx-aiohttp is not installed").AiohttpTransport(
        client=lambda: aiohttp.ClientSession(connector=connector)
    )
    http_client = pytest.importorskip(httpx).AsyncClient(transport=transport)
    settings = {"base_url": "http://llm.internal/v1", "api_key": "fake", "max_retries": 0}
    async with module.AsyncOpenAI(http_client=http_client, **settings) as client:
        yield client


@pytest.mark.parametrize("httpx", ["httpx", "httpx2"])
async def test_openai_closes_the_connector_and_asks_side_by_side(httpx: str) -> None:
    app = App(lambda request: {"id": request.url.path, "object": "model", "created": 0, "owned_by": "?"})
    connector = ASGIRoutingConnector({"llm.internal": app})
    async with openai(connector, httpx) as client:
        models = await asyncio.gather(*(client.models.retrieve(str(number)) for number in range(10)))
        assert [model.id for model in models] == [f"/v1/models/{number}" for number in range(10)]
    assert connector.closed
    assert app.lifespan == ["startup", "shutdown"]


async def test_openai_that_was_never_asked_leaves_the_connector_open() -> None:
    async with ASGIRoutingConnector() as connector:
        async with openai(connector):
            pass
        assert not connector.closed


async def test_openai_raises_what_the_app_raises() -> None:
    app = App(error=LookupError("no such model"))
    async with openai(ASGIRoutingConnector({"llm.internal": app})) as client:
        with pytest.raises(LookupError) as caught:
            await client.models.list()
        assert caught.value is app.error
    assert len(app.calls) == 1


async def test_openai_takes_for_a_timeout_what_is_none() -> None:
    errors = pytest.importorskip("openai", reason="openai is not installed")
    app = App(error=ConnectionResetError("the app's own database"))
    async with openai(ASGIRoutingConnector({"llm.internal": app})) as client:
        with pytest.raises(errors.APITimeoutError) as caught:
            await client.models.list()
        assert chain(caught.value)[2:] == [caught.value.__cause__.__cause__, app.error]
    assert len(app.calls) == 1
    async with openai(ASGIRoutingConnector()) as client:
        with pytest.raises(errors.APITimeoutError) as caught:
            await client.models.list()
        assert isinstance(caught.value.__cause__.__cause__, UnmountedHostError)


async def test_openai_streams_while_the_app_runs_and_raises_in_the_middle() -> None:
    go_on = asyncio.Event()
    error = LookupError("lost my thread")

    async def events() -> AsyncIterator[str]:
        for number in range(2):
            choice = {"index": 0, "delta": {"content": str(number)}, "finish_reason": None}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
            yield f"data: {dumps(chunk)}\n\n"
            await go_on.wait()
        raise error

    async def complete(request: Request) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    async with openai(ASGIRoutingConnector({"llm.internal": app})) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        assert (await anext(stream)).choices[0].delta.content == "0"
        go_on.set()
        assert (await anext(stream)).choices[0].delta.content == "1"
        with pytest.raises(LookupError) as caught:
            await anext(stream)
        assert caught.value is error
