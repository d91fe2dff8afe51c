"""`Stub`: answers are defined, given in order, and what was not asked for or not answered is reported."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final, TypedDict

from typing_extensions import Unpack

from asgi_connector._exceptions import UnmatchedRequestError
from asgi_connector._exchange.queries import QueryGiven
from asgi_connector._made import tell_made
from asgi_connector._numbers import check_int
from asgi_connector._types import Receive, Scope, Send

from .answers import Answer, Criteria, Path, read_criteria, read_response
from .asked import Asked, asked_by

_NEAREST: Final = 3  # answers that the error about an unmatched request names
_COMPARED: Final = 200  # characters of a path


class AnswerSettings(TypedDict, total=False):
    """The keyword arguments of `Stub.on()`."""

    query: QueryGiven | None
    request_json: Any
    status: int
    headers: Mapping[str, str] | Sequence[tuple[str | bytes, str | bytes]]
    json: Any
    text: str | None
    body: bytes | None
    times: int | None


class Stub:
    """An ASGI app of canned answers, for a service that you do not have.

    A request gets the first answer, in the order of definition, whose method, path, query and JSON body it matches.
    Answers for the same call, which means the same method, path, `query` and `request_json`, are given one after
    another, and the last one stays. A request that matches no answer raises `UnmatchedRequestError`.

    Parameters:
        allow_unused: whether an `intercept()` block may end although an answer was not asked for (`bool`, `False` by
            default), for a stub that many tests share. `assert_all_used()` lists such answers all the same.

    Raises `TypeError` if *allow_unused* is not a `bool`.
    """

    __module__ = "asgi_connector"

    def __init__(self, *, allow_unused: bool = False) -> None:
        if not isinstance(allow_unused, bool):
            raise TypeError(f"allow_unused must be a bool, not {allow_unused!r}")
        self._allow_unused = allow_unused
        self._answers: dict[Criteria, list[Answer]] = {}
        self._used: dict[Criteria, list[int]] = {}  # how many requests each of these answers has answered
        self._unanswered = Counter[str]()
        tell_made(self)

    def __repr__(self) -> str:
        answers = sum(map(len, self._answers.values()))
        parts = [f"{answers} {'answer' if answers == 1 else 'answers'}"]
        if unused := len(list(self._unused())):
            parts.append(f"{unused} not used up")
        if unanswered := self._unanswered.total():
            parts.append(f"{unanswered} {'request' if unanswered == 1 else 'requests'} not answered")
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    # Defining answers.

    def on(
        self,
        method: str,
        path: Path,
        *,
        query: QueryGiven | None = None,
        request_json: Any = ...,
        status: int = 200,
        headers: Mapping[str, str] | Sequence[tuple[str | bytes, str | bytes]] = (),
        json: Any = ...,
        text: str | None = None,
        body: bytes | None = None,
        times: int | None = None,
    ) -> None:
        """Define an answer to requests of any method: ``stub.on("PROPFIND", "/files", status=207, text="...")``.

        Parameters:
            method: in any case.
            path: decoded and without the query: a `str` that the path equals, or an `re.Pattern` that matches it whole.
            query: the whole query, as a `str` or as a mapping such as aiohttp's `params`; the order does not matter.
                `None`, the default: any query.
            request_json: a JSON value that the body of the request equals; any body if it is left out.
            status: from 200 to 999.
            headers: a mapping or pairs, `str` or `bytes`. The Content-Length is added, and so is a Content-Type that
                fits `json`, `text` or `body`, unless it is given.
            json: a JSON value; only one of `json`, `text` and `body` may be given. Without one the body is empty.
            text: a `str`, sent as UTF-8.
            body: `bytes`.
            times: how many requests get this answer, 1 or more. `None`, the default: one if another answer to the same
                call follows, and otherwise any number.

        Raises `TypeError` or `ValueError` for an answer that cannot be meant so.
        """
        criteria = read_criteria(method, path, query, request_json)
        response = read_response(status, headers, json, text, body)
        if times is not None:
            check_int("times", times, at_least=1)
        self._answers.setdefault(criteria, []).append(Answer(criteria, response, times))
        self._used.setdefault(criteria, []).append(0)

    def get(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to GET requests; parameters as those of `on()`."""
        self.on("GET", path, **settings)

    def post(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to POST requests; parameters as those of `on()`."""
        self.on("POST", path, **settings)

    def put(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to PUT requests; parameters as those of `on()`."""
        self.on("PUT", path, **settings)

    def patch(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to PATCH requests; parameters as those of `on()`."""
        self.on("PATCH", path, **settings)

    def delete(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to DELETE requests; parameters as those of `on()`."""
        self.on("DELETE", path, **settings)

    def head(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to HEAD requests; parameters as those of `on()`. The body is not sent, but its length is."""
        self.on("HEAD", path, **settings)

    def options(self, path: Path, **settings: Unpack[AnswerSettings]) -> None:
        """Define an answer to OPTIONS requests; parameters as those of `on()`."""
        self.on("OPTIONS", path, **settings)

    # What happened.

    def assert_all_used(self) -> None:
        """Raise an `AssertionError` that lists each answer that was not asked for, and each request without an answer.

        An answer with `times` must have been asked for so many times, and one without it once. A request without an
        answer is listed even if the code under test has handled its `UnmatchedRequestError`.
        """
        __tracebackhide__ = True
        if problems := [*self._unused(), *self._not_answered()]:
            raise AssertionError("\n  ".join([f"{self!r}:", *problems]))

    def problems(self) -> list[str]:
        """What `assert_all_used()` would list, one sentence each, without unused answers if these are allowed."""
        return [*(() if self._allow_unused else self._unused()), *self._not_answered()]

    def _not_answered(self) -> Iterator[str]:
        for asked, number in self._unanswered.items():
            yield f"not answered: {asked}{f' ({number} times)' if number > 1 else ''}"

    def _unused(self) -> Iterator[str]:
        for criteria, answers in self._answers.items():
            for answer, used in zip(answers, self._used[criteria], strict=True):
                if used == 0:
                    yield f"never asked for: {answer}"
                elif answer.times is not None and used < answer.times:
                    yield f"asked for {used} of {answer.times} times: {criteria}"

    # The ASGI app.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _ignore_lifespan(receive, send)
        elif kind == "http":
            body = await _read_body(receive)
            if body is not None:
                await self._answer(asked_by(scope, body), "http.response", send)
        elif kind == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            raise self._unmatched(asked_by(scope, b""))
        elif kind == "websocket":
            # A service without WebSockets answers the handshake as the GET request that it is.
            await self._answer(asked_by(scope, b""), "websocket.http.response", send)
        else:
            raise ValueError(f"a Stub does not know what to do with the ASGI scope {kind!r}")

    async def _answer(self, asked: Asked, message: str, send: Send) -> None:
        answer = self._next_answer(asked)
        if answer is None:
            raise self._unmatched(asked)
        response = answer.response
        await send({"type": f"{message}.start", "status": response.status, "headers": list(response.raw_headers)})
        await send({"type": f"{message}.body", "body": response.raw_body})

    def _next_answer(self, asked: Asked) -> Answer | None:
        """The answer to a request, which is counted as used; `None` if there is none."""
        for criteria, answers in self._answers.items():
            if criteria.differences(asked):
                continue
            used = self._used[criteria]
            for n, answer in enumerate(answers):
                is_last = n == len(answers) - 1
                if used[n] < (1 if answer.times is None else answer.times) or (is_last and answer.times is None):
                    used[n] += 1
                    return answer
        return None

    def _unmatched(self, asked: Asked) -> UnmatchedRequestError:
        """The error about a request without an answer, which is counted."""
        self._unanswered[str(asked)] += 1
        if not self._answers:
            return UnmatchedRequestError(f"no answer to {asked}: this stub has no answers")
        nearest = sorted(self._answers, key=lambda criteria: _distance(criteria, asked))[:_NEAREST]
        lines = [f"  {criteria}: {'; '.join(criteria.differences(asked)) or 'used up'}" for criteria in nearest]
        which = "nearest answers" if len(self._answers) > _NEAREST else "answers"
        return UnmatchedRequestError(
            "\n".join([f"no answer to {asked}. The {which}, and what differs in the request:", *lines])
        )


def _distance(criteria: Criteria, asked: Asked) -> tuple[float, int]:
    """How far a request is from matching: what differs in the path counts most."""
    path = criteria.path if isinstance(criteria.path, str) else criteria.path.pattern
    similarity = SequenceMatcher(None, path[:_COMPARED], asked.path[:_COMPARED]).ratio()
    return (0.0 if criteria.is_path(asked.path) else 1.0 - similarity, len(criteria.differences(asked)))


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body of a request; `None` if the client disconnects before its end."""
    body: list[bytes] = []
    while (message := await receive())["type"] == "http.request":
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(body)
    return None


async def _ignore_lifespan(receive: Receive, send: Send) -> None:
    """There is nothing to start, and nothing to shut down."""
    while True:
        kind: str = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
