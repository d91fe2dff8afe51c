"""`Watch`: the connectors of one test, from its setup to the end of its teardown."""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from itertools import takewhile
from typing import Final

from typing_extensions import override

from asgi_connector._connector.routing import ASGIRoutingConnector
from asgi_connector._connector.watched import Watched
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.section import Account, describe
from asgi_connector._journal.journal import Journal
from asgi_connector._stub.stub import Stub
from asgi_connector._waiters import Waiters

_KEPT: Final = 1000  # exchanges at least, if no test asks for the journal
_BODY_SIZE: Final = 1024 * 1024  # bytes, as in `ASGIRoutingConnector.record`


class JournalOfTest(Journal):
    """The exchanges of all connectors of a test, in the order of their start."""

    def __init__(self, waiters: Waiters) -> None:
        super().__init__(waiters=waiters)
        self.complete = False
        """Whether all exchanges are kept, because the test asks for them. A report needs only the latest."""
        self.dropped = 0
        self.explored = False
        """Whether the calls of an exploration were left out."""
        self.parts: list[JournalOfConnector] = []

    @override
    def add(self, exchange: Exchange) -> None:
        super().add(exchange)
        if not self.complete and len(self) == 2 * _KEPT:
            earliest = frozenset(self._exchanges[:_KEPT])
            for journal in (self, *self.parts):
                journal.drop(earliest)

    def drop(self, earliest: Set[Exchange]) -> None:
        """Forget the first exchanges, as far as they are among *earliest*."""
        number = sum(1 for _ in takewhile(earliest.__contains__, self._exchanges))
        del self._exchanges[:number]  # at once: another thread may add one
        self.dropped += number

    @override
    def leave_out(self, explored: Set[Exchange]) -> None:
        self.explored = True
        for number in reversed(range(len(self._exchanges))):  # another thread may add one at the end
            if self._exchanges[number] in explored:
                del self._exchanges[number]


class JournalOfConnector(JournalOfTest):
    """The exchanges of one connector of a test. They are added to the journal of the test too."""

    def __init__(self, whole: JournalOfTest, waiters: Waiters) -> None:
        super().__init__(waiters)
        self._whole = whole
        whole.parts.append(self)

    @override
    def add(self, exchange: Exchange) -> None:
        super().add(exchange)
        self._whole.add(exchange)

    @override
    def leave_out(self, explored: Set[Exchange]) -> None:
        if not self._whole.complete:
            super().leave_out(explored)
            self._whole.leave_out(explored)


class Watch:
    """What is known of one test.

    Parameters:
        recording: whether calls are recorded from the beginning. `journal()` begins it later.
        bodies: whether bodies are recorded too.
    """

    def __init__(self, *, recording: bool, bodies: bool) -> None:
        self._waiters = Waiters()  # for the end of an exchange, of any of the connectors
        self._journal = JournalOfTest(self._waiters)
        self._watched: dict[Watched, JournalOfConnector] = {}
        self._stubs: dict[Stub, None] = {}  # made during the test
        self._recording = recording
        self._max_body_size = _BODY_SIZE if bodies else None

    def add(self, made: object, *, is_new: bool) -> None:
        """Watch an open connector, or a stub that *is_new*: that was made during the test."""
        if isinstance(made, ASGIRoutingConnector):
            watched = Watched(made, is_new=is_new)
            self._watched[watched] = JournalOfConnector(self._journal, self._waiters)
            if self._recording:
                self._record(watched)
        elif isinstance(made, Stub) and is_new:
            self._stubs[made] = None

    def _record(self, watched: Watched) -> None:
        watched.record(self._watched[watched], self._waiters, self._max_body_size)

    def journal(self) -> Journal:
        """Return the journal of the test. From now on, it keeps every exchange."""
        if not self._recording:
            self._recording = True
            for watched in self._watched:
                self._record(watched)
        self._journal.complete = True
        return self._journal

    def end(self) -> None:
        """Watch no longer."""
        for watched in self._watched:
            watched.end()

    # What a report says.

    def take_refused(self) -> Counter[str]:
        """Return the refused calls of services that were not reported yet. The caller reports them."""
        taken: Counter[str] = Counter()
        for watched in self._watched:
            for refusals in watched.refusals():
                if refusals:
                    taken.update(refusals.take())
        return taken

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The exchanges that are kept."""
        return list(self._journal)

    @property
    def size(self) -> int:
        """A number that grows with everything that happens."""
        happened = sum(len(watched.notices) for watched in self._watched)
        return len(self._journal) + self._journal.dropped + happened

    @property
    def is_empty(self) -> bool:
        """Whether no connector was made or used during the test."""
        return not any(map(self._is_told, self._watched))

    def describe(self) -> str:
        """Return the text of the section."""
        return describe(list(self._accounts()))

    def _is_told(self, watched: Watched) -> bool:
        journal = self._watched[watched]
        return bool((watched.is_new and not journal.explored) or journal or watched.notices)

    def _accounts(self) -> Iterator[Account]:
        mounted = {stub for watched in self._watched for stub in watched.stubs()}
        unmounted = [stub for stub in self._stubs if stub not in mounted]
        problems = [f"A Stub that is not mounted now: {each}" for stub in unmounted for each in stub.problems()]
        for watched, journal in self._watched.items():
            if self._is_told(watched):
                account = watched.account(list(journal), journal.dropped, problems)
                problems = []
                if account.exchanges or account.notices or account.unused or not (journal.dropped or journal.explored):
                    yield account
