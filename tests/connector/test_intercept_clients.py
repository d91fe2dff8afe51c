"""Client libraries as they are installed: each makes its own session, which `intercept()` answers.

Nothing of a library is replaced, subclassed or configured but what its documentation tells every user to set.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from json import dumps
from typing import Any

import aiohttp
import pytest
import strawberry
from a2wsgi import WSGIMiddleware
from strawberry.asgi import GraphQL

from asgi_connector import ASGIRoutingConnector, Stub, UnmountedHostError
from asgi_connector._types import Receive, Scope, Send


def installed(module: str, package: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)  # by discord.py
        return pytest.importorskip(module, reason=f"{package} is not installed")


# aiobotocore and moto


@pytest.fixture
def aws() -> Iterator[Any]:
    """moto's server, a WSGI app that tells the services of AWS apart by the host of a request."""
    server = installed("moto.moto_server.werkzeug_app", "moto")
    application = server.DomainDispatcherApplication(server.create_backend_app)

    def terminated(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input_terminated"] = True  # aiobotocore sends chunks
        return application(environ, start_response)

    yield WSGIMiddleware(terminated)  # type: ignore[arg-type] # its protocol names the parameters
    installed("moto.backends", "moto").get_backend("s3").reset()


async def test_aiobotocore_keeps_objects_in_moto(aws: Any) -> None:
    session = installed("aiobotocore.session", "aiobotocore").get_session()
    keys = {"region_name": "eu-west-1", "aws_access_key_id": "fake", "aws_secret_access_key": "fake"}
    bodies = {f"letter {number}": f"dear Mr Babbage, {number}".encode() for number in range(5)}
    async with ASGIRoutingConnector({"*.amazonaws.com": aws}) as connector:
        with connector.record() as journal, connector.intercept():
            async with session.create_client("s3", **keys) as s3:
                where = {"LocationConstraint": "eu-west-1"}
                await s3.create_bucket(Bucket="letters", CreateBucketConfiguration=where)
                puts = (s3.put_object(Bucket="letters", Key=key, Body=body) for key, body in bodies.items())
                await asyncio.gather(*puts)
                found = await s3.list_objects_v2(Bucket="letters")
                assert {each["Key"] for each in found["Contents"]} == set(bodies)
                for key, body in bodies.items():
                    answer = await s3.get_object(Bucket="letters", Key=key)
                    async with answer["Body"] as stream:
                        assert await stream.read() == body
                with pytest.raises(s3.exceptions.NoSuchKey):
                    await s3.get_object(Bucket="letters", Key="none")
    assert {str(each.url.origin()) for each in journal} == {"https://letters.s3.eu-west-1.amazonaws.com"}
    assert {each.service for each in journal} == {"*.amazonaws.com"}


async def test_aiobotocore_is_told_that_a_service_is_not_mounted(aws: Any) -> None:
    session = installed("aiobotocore.session", "aiobotocore").get_session()
    errors = installed("botocore.exceptions", "aiobotocore")
    config = installed("aiobotocore.config", "aiobotocore").AioConfig(retries={"max_attempts": 0})
    keys = {"region_name": "eu-west-1", "aws_access_key_id": "fake", "aws_secret_access_key": "fake"}
    async with ASGIRoutingConnector({"s3.eu-west-1.amazonaws.com": aws}) as connector:
        with connector.intercept():
            async with session.create_client("sqs", config=config, **keys) as sqs:
                with pytest.raises(errors.EndpointConnectionError) as caught:
                    await sqs.list_queues()
    assert isinstance(caught.value.__context__, UnmountedHostError)


# gql


@strawberry.type
class Query:
    @strawberry.field
    def author(self, number: int) -> str:
        return f"author {number}"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


async def test_gql_asks_over_http_and_subscribes_over_a_websocket() -> None:
    gql = installed("gql", "gql")
    app = GraphQL[Any, Any](strawberry.Schema(Query, subscription=Subscription))
    over_http = installed("gql.transport.aiohttp", "gql").AIOHTTPTransport("https://graph.internal/graphql")
    over_websocket = installed("gql.transport.aiohttp_websockets", "gql").AIOHTTPWebsocketsTransport(
        "wss://graph.internal/graphql"
    )
    async with ASGIRoutingConnector({"graph.internal": app}) as connector:
        with connector.intercept():
            async with gql.Client(transport=over_http) as client:
                query = "query ($number: Int!) { author(number: $number) }"
                requests = [gql.GraphQLRequest(query, variable_values={"number": number}) for number in range(10)]
                answers = await asyncio.gather(*map(client.execute, requests))
                assert [answer["author"] for answer in answers] == [f"author {number}" for number in range(10)]
            async with gql.Client(transport=over_websocket) as client:
                counted = client.subscribe(gql.gql("subscription { count(to: 3) }"))
                assert [each["count"] async for each in counted] == [0, 1, 2]


# slack_sdk


async def test_slack_sdk_makes_a_session_for_each_call() -> None:
    client = installed("slack_sdk.web.async_client", "slack_sdk").AsyncWebClient(token="xoxb-1")
    errors = installed("slack_sdk.errors", "slack_sdk")
    slack = Stub()
    slack.post("/api/chat.postMessage", json={"ok": True, "ts": "1.0"}, times=2)
    slack.get("/api/users.info", query={"user": "U1"}, json={"ok": False, "error": "user_not_found"})
    async with ASGIRoutingConnector({"slack.com": slack}) as connector:
        with connector.record(bodies=True) as journal, connector.intercept():
            for _ in range(2):
                assert (await client.chat_postMessage(channel="C1", text="hello"))["ts"] == "1.0"
            with pytest.raises(errors.SlackApiError, match="user_not_found"):
                await client.users_info(user="U1")
    slack.assert_all_used()
    [first, _] = journal.assert_called("slack.com", path="/api/chat.postMessage", times=2)
    assert first.request.headers["Authorization"] == "Bearer xoxb-1"
    assert first.request.body == b'{"channel": "C1", "text": "hello"}'


# OpenTelemetry


@pytest.fixture
def spans() -> Iterator[Any]:
    """The spans of OpenTelemetry, which instruments every session that is made from here on."""
    instrumentation = installed(
        "opentelemetry.instrumentation.aiohttp_client", "opentelemetry-instrumentation-aiohttp-client"
    )
    trace = installed("opentelemetry.sdk.trace", "opentelemetry-sdk")
    export = installed("opentelemetry.sdk.trace.export", "opentelemetry-sdk")
    memory = installed("opentelemetry.sdk.trace.export.in_memory_span_exporter", "opentelemetry-sdk")
    exporter, provider = memory.InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    instrumentor = instrumentation.AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()


async def test_opentelemetry_sees_the_request_and_passes_its_trace_on(spans: Any) -> None:
    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        async with aiohttp.ClientSession() as session, session.get("http://back.internal/part") as response:
            await respond(send, response.status, await response.read())

    async def back(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 418, dict(scope["headers"])[b"traceparent"])

    apps = {"front.internal": front, "back.internal": back}
    async with ASGIRoutingConnector(apps, lifespan="off") as connector:
        with connector.intercept():
            async with aiohttp.ClientSession() as session, session.get("http://front.internal/whole") as response:
                seen = await response.text()
    inner, outer = spans.get_finished_spans()
    told = [(dict(span.attributes)["http.url"], dict(span.attributes)["http.status_code"]) for span in (inner, outer)]
    assert told == [("http://back.internal/part", 418), ("http://front.internal/whole", 418)]
    assert seen.startswith(f"00-{inner.context.trace_id:032x}-{inner.context.span_id:016x}-")


async def test_a_session_that_opentelemetry_has_instrumented_sees_a_refusal(spans: Any) -> None:
    async with ASGIRoutingConnector() as connector:
        with connector.intercept():
            async with aiohttp.ClientSession() as session:
                with pytest.raises(UnmountedHostError):
                    await session.get("http://nowhere.internal/")
    [span] = spans.get_finished_spans()
    assert span.events[0].attributes["exception.type"].endswith("UnmountedHostError")


async def respond(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


# discord.py


async def test_discord_py_logs_in() -> None:
    discord = installed("discord", "discord.py")
    me = {"id": "1", "username": "engine", "discriminator": "0", "avatar": None, "global_name": "engine", "bot": True}
    application = {
        "id": "2",
        "name": "engine",
        "flags": 0,
        "description": "",
        "icon": None,
        "rpc_origins": [],
        "bot_public": False,
        "bot_require_code_grant": False,
        "owner": me,
        "verify_key": "",
        "team": None,
    }
    api = Stub()
    api.get("/api/v10/users/@me", json=me)
    api.get("/api/v10/oauth2/applications/@me", json=application)
    async with ASGIRoutingConnector({"discord.com": api}) as connector:
        with connector.intercept():
            async with discord.Client(intents=discord.Intents.none()) as client:
                await client.login("fake")
                assert client.user.name == "engine"
    api.assert_all_used()


# httpx and OpenAI, over httpx-aiohttp


async def test_httpx_aiohttp_answers_httpx() -> None:
    httpx = installed("httpx", "httpx")
    transport = installed("httpx_aiohttp", "httpx-aiohttp").AiohttpTransport()
    api = Stub()
    api.get("/users/1", json={"name": "Ada"})
    async with ASGIRoutingConnector({"api.internal": api}) as connector:
        with connector.intercept():
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("https://api.internal/users/1")).json() == {"name": "Ada"}


async def test_openai_streams_with_the_http_client_that_it_offers() -> None:
    openai = installed("openai", "openai")
    installed("httpx_aiohttp", "httpx-aiohttp")
    chunks = [
        {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        for choice in ({"index": 0, "delta": {"content": word}, "finish_reason": None} for word in ("Hel", "lo"))
    ]
    text = "".join(f"data: {dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    api = Stub()
    api.post("/v1/chat/completions", text=text, headers={"Content-Type": "text/event-stream"})
    async with ASGIRoutingConnector({"api.openai.com": api}) as connector:
        with connector.intercept():
            async with openai.AsyncOpenAI(api_key="fake", http_client=openai.DefaultAioHttpClient()) as client:
                stream = await client.chat.completions.create(model="m", messages=[], stream=True)
                assert [chunk.choices[0].delta.content async for chunk in stream] == ["Hel", "lo"]


# Elasticsearch


async def test_elasticsearch_finds_a_document() -> None:
    module = installed("elasticsearch", "elasticsearch")
    node = Stub()
    headers = {"X-Elastic-Product": "Elasticsearch"}
    node.get("/books/_doc/1", json={"_id": "1", "found": True}, headers=headers)
    async with ASGIRoutingConnector({"elastic.internal:9200": node}) as connector:
        with connector.intercept():
            async with module.AsyncElasticsearch("http://elastic.internal:9200") as client:
                assert (await client.get(index="books", id="1"))["found"]


# fsspec


async def test_fsspec_reads_a_file() -> None:
    fsspec = installed("fsspec", "fsspec")
    files = Stub()
    files.get("/letters/ada.txt", text="dear Mr Babbage")
    async with ASGIRoutingConnector({"files.internal": files}) as connector:
        with connector.intercept():
            system = fsspec.filesystem("http", asynchronous=True, skip_instance_cache=True)
            session = await system.set_session()
            assert await system._cat("http://files.internal/letters/ada.txt") == b"dear Mr Babbage"
            await session.close()
