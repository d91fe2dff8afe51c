"""Scenarios that inject faults into a system of several services, and their journals.

``python -m tests.support.shaken SEED`` prints the journals of all scenarios, always in the same order.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import looptime
from aiohttp import ClientError, ClientSession, ClientTimeout

from asgi_connector import ASGIRoutingConnector, Journal, faults
from asgi_connector._types import Receive, Scope, Send
from tests.support.waiting import until

MANY = 8  # requests at the same time: so many that their order is not the same by chance
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class System:
    """A system of services. Orders calls users and payments, and after its response mail. Payments calls a bank."""

    session: ClientSession
    connector: ASGIRoutingConnector
    journal: Journal

    @classmethod
    @asynccontextmanager
    async def running(cls, **settings: Any) -> "AsyncIterator[System]":
        system = cls()
        # Each service is a separate app, so that each has a lifespan. One app at five patterns has only one.
        apps = {f"{name}.internal": partial(system.app) for name in ("orders", "users", "payments", "bank", "mail")}
        system.connector = ASGIRoutingConnector(apps, **settings)
        async with ClientSession(connector=system.connector, timeout=ClientTimeout(total=30)) as system.session:
            with system.connector.record() as system.journal:
                yield system

    async def ask(self, service: str, path: str, method: str = "GET") -> int:
        """Return the status of the response; 0 if there is none."""
        try:
            async with self.session.request(method, f"http://{service}.internal{path}") as response:
                await response.read()
                return response.status
        except (ClientError, TimeoutError):
            return 0

    async def ask_many(self, service: str, method: str = "GET") -> None:
        await asyncio.gather(*(self.ask(service, f"/{number}", method) for number in range(MANY)))

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        service = dict(scope["headers"])[b"host"].decode().removesuffix(".internal")
        path = scope["path"]
        while (await receive()).get("more_body"):
            pass
        status = await self._work(service, path)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"4")]})
        if path.endswith("/held"):
            await send({"type": "http.response.body", "body": b"d", "more_body": True})
            await receive()  # the client's disconnect
        await send({"type": "http.response.body", "body": b"done"[path.endswith("/held") :]})
        if service == "orders":
            await self.ask("mail", path)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _work(self, service: str, path: str) -> int:
        if service == "orders":
            user, paid = await asyncio.gather(self.ask("users", path), self._pay(path))
            return 200 if (user, paid) == (200, 200) else 502
        if service == "payments":
            return await self.ask("bank", path, "POST") or 503
        return 200

    async def _pay(self, path: str) -> int:
        for _ in range(3):
            if (status := await self.ask("payments", path, "POST")) == 200:
                break
        return status


async def shake_by_chance(seed: int, **settings: Any) -> Journal:
    """Inject faults that take no time and affect some of the requests."""
    async with System.running(lifespan="off", **settings) as system:
        inject = system.connector.inject
        with (
            inject("users.internal", faults.Reset(), probability=0.3, seed=seed),
            inject("users.internal", faults.Close(after=2), probability=0.3, seed=float(seed)),
            inject("payments.internal", faults.Respond(503), caller="orders.internal", probability=0.3, seed=seed),
            inject("bank.internal", faults.Reset(on="request"), probability=0.3, seed=f"a seed of {seed}"),
            inject("mail.internal", faults.Refuse(), probability=0.3, seed=b"a seed of %d" % seed),
            inject("mail.internal", faults.Unresolvable(), probability=0.3, seed=-seed),
        ):
            await system.ask_many("orders")
            await system.ask_many("orders")
            await system.journal.wait_for("mail.internal", times=2 * MANY)
    return system.journal


async def shake_over_few_connections(seed: int) -> Journal:
    return await shake_by_chance(seed, limit_per_host=2)


async def delay_by_chance(seed: int) -> Journal:
    """Inject faults that take time."""
    async with System.running(lifespan="off") as system:
        inject = system.connector.inject
        with (
            inject("users.internal", faults.Latency(2, jitter=1), seed=seed),
            inject("users.internal", faults.Throttle(50, on="request"), probability=0.5, seed=seed),
            inject("bank.internal", faults.Latency(0.2, jitter=0.1, on="request"), probability=0.5, seed=seed),
            inject("payments.internal", faults.Hang(), probability=0.1, seed=seed),
            inject("mail.internal", faults.Latency(1, jitter=1), seed=seed),
        ):
            await system.ask_many("orders")
            await system.ask_many("orders")
            await system.journal.wait_for("mail.internal", times=2 * MANY, timeout=None)
    return system.journal


@asynccontextmanager
async def many_held(system: System) -> AsyncIterator[None]:
    """Keep many requests in progress. The heads of their responses have arrived."""
    arrived = asyncio.Semaphore(0)

    async def ask(number: int) -> None:
        with suppress(ClientError):
            async with system.session.get(f"http://users.internal/{number}/held") as response:
                arrived.release()
                await response.read()
        await system.ask("mail", f"/{number}")

    clients = [asyncio.create_task(ask(number)) for number in range(MANY)]
    for _ in clients:
        await arrived.acquire()
    yield
    await asyncio.gather(*clients)


async def cut_what_is_open(seed: int) -> Journal:
    async with System.running(lifespan="off") as system, many_held(system):
        with system.connector.inject("users.internal", faults.Reset(), seed=seed, allow_unused=True):
            await system.journal.wait_for("mail.internal", times=MANY)
    return system.journal


async def delay_what_is_open(seed: int) -> Journal:
    latency = faults.Latency(2, jitter=1)
    async with System.running(lifespan="off") as system, many_asking(system, "orders"):
        with system.connector.inject("orders.internal", latency, seed=seed, allow_unused=True):
            await system.journal.wait_for("mail.internal", times=MANY, timeout=None)
            await system.journal.wait_for("orders.internal", times=MANY, timeout=None)
    return system.journal


@asynccontextmanager
async def many_asking(system: System, service: str) -> AsyncIterator[None]:
    """Start many requests. They continue in the block."""
    clients = [asyncio.create_task(system.ask(service, f"/{number}")) for number in range(MANY)]
    await until(lambda: len(system.journal.select(f"{service}.internal")) >= MANY)
    yield
    await asyncio.gather(*clients)


async def let_go_what_hung(seed: int) -> Journal:
    async with System.running(lifespan="off") as system, AsyncClients() as clients:
        with ExitStack() as blocks:
            for service, fault in [
                ("users", faults.Hang(on="connect")),
                ("bank", faults.Hang(on="request")),
                ("payments", faults.Hang()),
            ]:
                blocks.enter_context(system.connector.inject(f"{service}.internal", fault, seed=seed))
            for service in ("users", "bank", "payments"):
                clients.start(system.ask_many(service, "POST"))
            await until(lambda: len(system.journal) >= 4 * MANY)
    return system.journal


class AsyncClients:
    """Tasks that are awaited at the end of the block."""

    def __init__(self) -> None:
        self._tasks: list[Awaitable[None]] = []

    def start(self, coroutine: Any) -> None:
        self._tasks.append(asyncio.create_task(coroutine))

    async def __aenter__(self) -> "AsyncClients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)


async def start_for_many(seed: int) -> Journal:
    """Send many requests that wait for the startup of the same apps."""
    async with System.running() as system:
        await system.ask_many("orders")
        await system.journal.wait_for("mail.internal", times=MANY)
    return system.journal


async def go_on_when_the_journal_says_so(seed: int) -> Journal:
    """Let many tasks wait for the same exchange to end."""
    async with System.running(lifespan="off") as system, AsyncClients() as clients:

        async def follow(number: int) -> None:
            await system.journal.wait_for("users.internal")
            await system.ask("mail", f"/{number}")

        for number in range(MANY):
            clients.start(follow(number))
        await asyncio.sleep(0)
        await system.ask("users", "/")
    return system.journal


async def close_with_many_under_way(seed: int) -> Journal:
    async with System.running(lifespan="off") as system, many_held(system):
        await system.session.close()
    return system.journal


async def remount_with_many_idle(seed: int) -> Journal:
    """Close idle connections that the next requests would have used."""
    async with System.running(lifespan="off") as system:
        await system.ask_many("users")
        system.connector.mount("users.internal", system.app)
        with system.connector.inject("mail.internal", faults.Reset(), seed=seed, allow_unused=True):
            await asyncio.gather(system.ask_many("users"), system.ask_many("mail"))
    return system.journal


Scenario = Callable[[int], Awaitable[Journal]]

BY_CHANCE: list[Scenario] = [shake_by_chance, shake_over_few_connections]
IN_VIRTUAL_TIME: list[Scenario] = [delay_by_chance, delay_what_is_open]
OTHERS: list[Scenario] = [
    cut_what_is_open,
    let_go_what_hung,
    start_for_many,
    go_on_when_the_journal_says_so,
    close_with_many_under_way,
    remount_with_many_idle,
]


def run(scenario: Scenario, seed: int, loop_factory: LoopFactory) -> str:
    """Return the journal without times, the diagram, and the order of all starts and ends."""

    async def tell() -> str:
        journal = await scenario(seed)
        assert all(exchange.ended for exchange in journal)
        without_times = re.sub(r" in \d+ ms$", "", str(journal), flags=re.MULTILINE)
        return f"{without_times}\n{journal.to_mermaid()}{[exchange.order for exchange in journal]}"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(tell())


def virtual_time() -> asyncio.AbstractEventLoop:
    return looptime.new_event_loop(start=0)


def run_all(seed: int) -> dict[str, str]:
    told = {scenario: run(scenario, seed, asyncio.new_event_loop) for scenario in [*BY_CHANCE, *OTHERS]}
    told |= {scenario: run(scenario, seed, virtual_time) for scenario in IN_VIRTUAL_TIME}
    return {scenario.__name__: text for scenario, text in told.items()}


if __name__ == "__main__":
    print(json.dumps(run_all(int(sys.argv[1]))))
