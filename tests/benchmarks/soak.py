"""A long run of services with random faults: ``python -m tests.benchmarks.soak --requests 100000 --seed 1``.

Four services get requests of every kind: small ones, large uploads and downloads that are cancelled early, WebSockets,
calls between services, apps that raise, apps that do not read. Faults of every kind are injected at random. Apps are
replaced and unmounted. After each round nothing may be left: no task, no connection in use, no request that never ends.
After all rounds, the memory must be the same as after the first few.

The time is virtual, so a request that hangs forever is found immediately.
"""

import argparse
import asyncio
import gc
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import aiohttp
import looptime
from aiohttp import ClientError, ClientSession, ClientTimeout, WSMsgType

from asgi_connector import ASGIConnectorError, ASGIRoutingConnector, faults
from asgi_connector._asgi.frames import CLOSE_TIMEOUT
from asgi_connector._types import Receive, Scope, Send

KIB = 1024
HOSTS = ("users.internal", "orders.internal", "files.internal", "chat.internal")
CLIENTS = 50  # at the same time
ROUND = 2_000  # requests
LONGEST = 300.0  # seconds of virtual time that a request may take; the client times out earlier
WARM_UP = 5  # rounds, after which memory must not grow any more
GROWTH = 1.02  # of the number of allocated blocks


class AppError(Exception):
    """What an app raises in this run."""


class System:
    """The services, and the session that they call each other with."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def app(self) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """A new app object. All four services run this app, and use the path to tell which service they are."""
        return partial(self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._chat(scope["path"], receive, send)
            return
        await getattr(self, f"_{scope['path'].strip('/').replace('-', '_')}")(receive, send)

    async def _small(self, receive: Receive, send: Send) -> None:
        await _read(receive)
        await _answer(send, 200, b"small")

    async def _unread(self, receive: Receive, send: Send) -> None:
        await _answer(send, 413, b"too large")

    async def _large(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(20):
            await send({"type": "http.response.body", "body": bytes(16 * KIB), "more_body": True})
        await send({"type": "http.response.body"})

    async def _last(self, receive: Receive, send: Send) -> None:
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(300 * KIB)})

    async def _raise(self, receive: Receive, send: Send) -> None:
        raise AppError

    async def _raise_late(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise AppError

    async def _reset(self, receive: Receive, send: Send) -> None:
        raise aiohttp.ServerDisconnectedError

    async def _order(self, receive: Receive, send: Send) -> None:
        """Calls two other services, and one more after its response."""
        await _read(receive)
        results = await asyncio.gather(self._ask("users", "small"), self._ask("files", "large"))
        await _answer(send, 200 if all(results) else 502, b"done")
        await self._ask("chat", "small")

    async def _ask(self, service: str, path: str) -> bool:
        with suppress(ClientError, TimeoutError, ConnectionError, ASGIConnectorError):
            timeout = ClientTimeout(total=10)
            async with self._session.get(f"http://{service}.internal/{path}", timeout=timeout) as response:
                return bool(await response.read())
        return False

    async def _chat(self, path: str, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with suppress(OSError):
            for _ in range(50 if path == "/push" else 0):
                await send({"type": "websocket.send", "bytes": bytes(16 * KIB)})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})


async def _read(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status})
    await send({"type": "http.response.body", "body": body})


class Clients:
    """Make random requests. Each ends in some way."""

    def __init__(self, session: ClientSession, chance: random.Random) -> None:
        self._session = session
        self._chance = chance
        self.outcomes = Counter[str]()

    async def run(self, requests: int) -> None:
        """Make so many requests, `CLIENTS` of them at the same time."""
        left = iter(range(requests))

        async def client() -> None:
            for _ in left:
                await self._request()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def _request(self) -> None:
        chance = self._chance
        ways = [self._get, self._get, self._upload, self._leave_early, self._cancel, self._chat]
        path = chance.choice(["small", "small", "order", "unread", "large", "last", "raise", "raise-late", "reset"])
        timeout = ClientTimeout(total=chance.choice([0.05, 1.0, 30.0]))
        url = f"http://{chance.choice(HOSTS)}/{path}"
        try:
            async with asyncio.timeout(LONGEST):
                outcome = await chance.choice(ways)(url, timeout)
        except TimeoutError:
            raise AssertionError(f"a request to {url} hangs") from None
        self.outcomes[outcome] += 1

    async def _ended(self, call: Awaitable[object]) -> str:
        try:
            return f"{await call}"
        except (AppError, ClientError, ConnectionError, TimeoutError, ASGIConnectorError) as exc:
            return type(exc).__name__

    async def _get(self, url: str, timeout: ClientTimeout) -> str:
        async def get() -> int:
            async with self._session.get(url, timeout=timeout) as response:
                await response.read()
                return response.status

        return await self._ended(get())

    async def _upload(self, url: str, timeout: ClientTimeout) -> str:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(self._chance.choice([1, 10, 40])):
                yield bytes(16 * KIB)

        async def post() -> int:
            async with self._session.post(url, data=body(), timeout=timeout) as response:
                await response.read()
                return response.status

        return await self._ended(post())

    async def _leave_early(self, url: str, timeout: ClientTimeout) -> str:
        async def begin() -> str:
            async with self._session.get(url, timeout=timeout) as response:
                await response.content.readany()
            return "left early"

        return await self._ended(begin())

    async def _cancel(self, url: str, timeout: ClientTimeout) -> str:
        call = asyncio.ensure_future(self._upload(url, timeout))
        for _ in range(self._chance.randrange(8)):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        return "cancelled" if call.cancelled() else call.result()

    async def _chat(self, url: str, timeout: ClientTimeout) -> str:
        async def chat() -> str:
            path = self._chance.choice(["talk", "push"])
            async with (
                asyncio.timeout(timeout.total),
                self._session.ws_connect(url.rpartition("/")[0] + "/" + path, timeout=_CLOSING) as websocket,
            ):
                for number in range(self._chance.randrange(5)):
                    await websocket.send_str(str(number))
                    if (await websocket.receive()).type is WSMsgType.CLOSED:
                        break
            return f"WebSocket closed by {websocket.close_code}"

        return await self._ended(chat())


_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)


class Shaker:
    """Random faults and changes of the table."""

    def __init__(self, connector: ASGIRoutingConnector, system: System, chance: random.Random) -> None:
        self._connector = connector
        self._system = system
        self._chance = chance

    def blocks(self) -> ExitStack:
        """Some blocks that each affect some requests."""
        chance = self._chance
        with ExitStack() as blocks:
            if chance.random() < 0.5:
                blocks.enter_context(self._connector.record(bodies=chance.random() < 0.5))
            for _ in range(chance.randrange(6)):
                blocks.enter_context(
                    self._connector.inject(
                        chance.choice(HOSTS),
                        self._fault(),
                        probability=chance.choice([0.05, 0.3, 1.0]),
                        times=chance.choice([None, 100]),
                        seed=chance.random(),
                        allow_unused=True,
                    )
                )
            return blocks.pop_all()
        raise AssertionError

    def _fault(self) -> faults.Fault:
        chance = self._chance
        after = chance.choice([None, 0, 10, 80_000])
        kinds: list[Callable[[], faults.Fault]] = [
            faults.Refuse,
            faults.Unresolvable,
            lambda: faults.Respond(503, body=b"not now"),
            lambda: faults.Hang(on="connect"),
            lambda: faults.Hang(on=chance.choice(["request", "response"]), after=after),
            lambda: faults.Reset(on=chance.choice(["request", "response"]), after=after),
            lambda: faults.Close(on=chance.choice(["request", "response"]), after=after),
            lambda: faults.Latency(0.1, jitter=0.1, on=chance.choice(["request", "response"])),
            lambda: faults.Throttle(chance.choice([1e4, 1e6]), on=chance.choice(["request", "response"])),
        ]
        return chance.choice(kinds)()

    async def change_the_table(self) -> None:
        """Replace apps, in every possible way, while requests are in flight."""
        for _ in range(3):
            await asyncio.sleep(self._chance.random())
            host = self._chance.choice(HOSTS)
            async with self._connector.mounted(host, self._system.app()):
                await asyncio.sleep(self._chance.random())
            self._connector.mount(host, self._system.app())
        await self._connector.unmount(host)
        self._connector.mount(host, self._system.app())


async def check_that_nothing_is_left(session: ClientSession, connector: ASGIRoutingConnector) -> None:
    """The round is over: apps whose clients have disconnected end, and then only idle connections are left."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        _, running = await asyncio.wait(others, timeout=LONGEST)
        assert not running
    # Over a slow line the server learns late that its client has disconnected, and a WebSocket may take time to close.
    await asyncio.sleep(CLOSE_TIMEOUT + 1)
    assert not connector._acquired
    assert connector._services.in_flight.is_idle()
    pooled: set[object] = {protocol for protocols in connector._conns.values() for protocol, _ in protocols}
    left = [connection for connection in connector._services.in_flight.connections if connection.client not in pooled]
    assert not left, [(connection, connection.transport, connection.transport.peer) for connection in left]
    for host in HOSTS:
        async with session.get(f"http://{host}/small") as response:
            assert await response.read() == b"small"


def allocated_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def soak(requests: int, seed: int) -> list[int]:
    """Run. Returns how much memory was allocated after each round."""
    chance = random.Random(seed)
    connector = ASGIRoutingConnector(lifespan="off")
    memory: list[int] = []
    async with ClientSession(connector=connector, trust_env=False) as session:
        system = System(session)
        shaker, clients = Shaker(connector, system, chance), Clients(session, chance)
        for host in HOSTS:
            connector.mount(host, system.app())
        done = 0
        while done < requests:
            started = time.perf_counter()
            size = min(ROUND, requests - done)
            with shaker.blocks():
                await asyncio.gather(clients.run(size), shaker.change_the_table())
            await check_that_nothing_is_left(session, connector)
            done += size
            memory.append(allocated_blocks())
            took = time.perf_counter() - started
            print(f"{done:>8} requests, {memory[-1]:>8} blocks, {took:.1f} s", flush=True)
        print(", ".join(f"{outcome}: {count}" for outcome, count in clients.outcomes.most_common()))
    return memory


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="(100000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    options = parser.parse_args(arguments)
    logging.getLogger("asgi_connector").setLevel(logging.CRITICAL)  # apps raise on purpose
    with asyncio.Runner(loop_factory=partial(looptime.new_event_loop, start=0)) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        memory = runner.run(soak(options.requests, options.seed))
    if len(memory) > 2 * WARM_UP:
        growth = memory[-1] / memory[WARM_UP - 1]
        print(f"memory after round {WARM_UP} and at the end: {growth:.3f}")
        assert growth < GROWTH, "memory grows with the number of requests"


if __name__ == "__main__":
    main()
