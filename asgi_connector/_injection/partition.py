"""`partition()` blocks: groups of hosts that cannot reach each other."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias
from weakref import WeakSet

from aiohttp import ClientConnectionError, ClientRequest, ClientTimeout
from typing_extensions import override

from asgi_connector._aiohttp.requests import connection_refused, wait_to_connect
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.selector import Call
from asgi_connector._network.impairments import Allowance, HangStage, Stage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._services.patterns import Pattern, parse_pattern
from asgi_connector._services.server_end import RequestProgress, ServerEnd
from asgi_connector._services.table import MountTable
from asgi_connector._waiters import Waiters

from .blocks import Effect, FaultBlock, OpenBlocks
from .effects import cut, put_in_way
from .faults import Hang, Refuse, Reset, Silence

Group: TypeAlias = Iterable[str | None]

_LEAST: Final = 2  # groups


class Groups:
    """Groups of hosts, and of what is outside every app. Raises `TypeError` or `ValueError` for an invalid one."""

    def __init__(self, groups: Sequence[Sequence[str | None]], table: MountTable) -> None:
        self._table = table
        self._number_of: dict[Pattern | None, int] = {}
        if len(groups) < _LEAST:
            raise ValueError(f"a partition needs two groups or more, not {len(groups)}: {_shown(groups)}")
        for number, group in enumerate(groups):
            if not group:
                raise ValueError(f"each group must have a host: {_shown(groups)}")
            for host in group:
                key = self._key_of(host)
                if self._number_of.setdefault(key, number) != number:
                    raise ValueError(f"{host!r} is in two groups: {_shown(groups)}")

    def _key_of(self, host: str | None) -> Pattern | None:
        if host is None:
            return None
        key = parse_pattern(host)
        if self._table.visible_at(host) is None:
            raise ValueError(f"{host!r} is not mounted. {self._table.describe(key.host)}")
        return key

    def separate(self, call: Call) -> bool:
        """Whether the caller and the app that is called are in different groups."""
        mounted = self._table.find(call.address)
        if mounted is None:
            return False
        caller = self._number_of.get(None if call.caller is None else parse_pattern(call.caller))
        called = self._number_of.get(parse_pattern(mounted.pattern))
        return caller is not None and called is not None and caller != called


class Partition(FaultBlock):
    """An open `partition()` block.

    Attributes:
        fault: what the calls between the groups meet.
        matched: the number of requests between the groups.
        affected: the number of them that the fault has affected.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, blocks: OpenBlocks, groups: tuple[Group, ...], fault: Hang | Refuse, allow_unused: bool) -> None:
        hosts = [_as_list(group) for group in groups]
        if fault not in (Hang(), Refuse()):
            raise ValueError(f"the fault of a partition must be faults.Hang() or faults.Refuse(), not {fault!r}")
        self._groups = Groups(hosts, blocks.table)
        self._shown = _shown(hosts)
        self.fault = fault
        self._waiters = Waiters()  # requests that wait for the end of the block
        self._decided: WeakSet[LiveExchange] = WeakSet()  # those that have started in the block
        super().__init__(blocks, f"partition({self._shown})", allow_unused)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._shown}, {self.fault!r}, {self.affected} affected>"

    @override
    def end_fault(self, error: ClientConnectionError | None = None) -> None:
        super().end_fault(error)
        self._waiters.wake(error)

    @override
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        assert exchange is not None  # a request that started before the block has another way
        self._decided.add(exchange)
        if not self._groups.separate(call):
            return None
        self.matched += 1
        return Effect(self, Silence() if isinstance(self.fault, Hang) else self.fault)

    @override
    async def before_connection(self, effect: Effect, req: ClientRequest, timeout: ClientTimeout) -> None:
        if isinstance(self.fault, Refuse):
            raise connection_refused(req)
        if not self._blocks.has_idle(req):
            await wait_to_connect(self._waiters.wait(), timeout)

    @override
    def keeps_late(self, call: Call, exchange: LiveExchange | None) -> bool:
        if self.over or exchange in self._decided or not self._groups.separate(call):
            return False
        self.matched += 1
        self.affected += 1
        if exchange is not None:
            exchange.fault, exchange.via = self.fault, "fault"
        return True

    @override
    async def wait_late(self, req: ClientRequest, timeout: ClientTimeout) -> None:
        if isinstance(self.fault, Refuse):
            raise connection_refused(req)
        await wait_to_connect(self._waiters.wait(), timeout)

    @override
    def stages(
        self, effect: Effect, exchange: LiveExchange, client: MemoryTransport
    ) -> Iterable[tuple[MemoryTransport, Stage]]:
        for pipe in (client, client.peer):
            yield pipe, self._silence()

    def _silence(self) -> Stage:
        stage = HangStage(Allowance(None, head_passed=True))
        self.add_stage(stage)
        return stage

    @override
    def affect_open_connections(self) -> None:
        for connection in self._blocks.connections:
            progress = connection.progress() if connection.client.connected else None
            if progress is not None:
                self._affect_request(connection, progress)

    def _affect_request(self, connection: ServerEnd, progress: RequestProgress) -> None:
        call = Call(connection.address, progress.caller, progress.method, progress.path, progress.query)
        if not self._groups.separate(call):
            return
        self.matched += 1
        self.affected += 1
        exchange = progress.observer if isinstance(progress.observer, LiveExchange) else None
        if exchange is not None:
            exchange.fault = self.fault
        server = connection.transport
        if isinstance(self.fault, Refuse):
            cut(server, Reset(), exchange)
            return
        for pipe in (server, server.peer):
            put_in_way(pipe, self._silence())

    @override
    def _describe_unused(self) -> str:
        reason = "there was no request from one group to another while it was open."
        return f"{self._call} has affected nothing: {reason}"


def _as_list(group: Group) -> list[str | None]:
    if isinstance(group, str):
        raise TypeError(f"a group must be a set of host patterns, not {group!r}: write {{{group!r}}}")
    if not isinstance(group, Iterable):
        raise TypeError(f"a group must be a set of host patterns, not {group!r}")
    hosts = list(group)
    for host in hosts:
        if not (host is None or isinstance(host, str)):
            raise TypeError(f"a group has host patterns and None, not {host!r}")
    return hosts


def _shown(groups: Sequence[Sequence[str | None]]) -> str:
    """The groups, each in the order of its names: that of a set changes from run to run."""
    return ", ".join(f"{{{', '.join(map(repr, sorted(group, key=str)))}}}" for group in groups)
