"""The differences between the servers for an app. The tests assert each row.

``python -m tests.support.differences`` prints the table of docs/parity.md.
"""

import os
from typing import Any, Final, NamedTuple, TypeVar, cast

import pytest
from aiohttp import WSMsgType

from asgi_connector._types import Message
from tests.support.servers import HYPERCORN, UVICORN, UVICORN_WEBSOCKETS, UVICORN_WSPROTO

T = TypeVar("T")


class Topic(NamedTuple):
    """The text that several rows share: one row of the table in the docs."""

    behaviour: str
    here: str
    uvicorn: str
    hypercorn: str
    why: str


class Row(NamedTuple):
    """The result of a test on a server, where it differs from the result in process."""

    instead: object
    topic: Topic


SAME: Final = "the same"

CODES: Final = (1000, 1001, 3000, 4999)
"""The codes with which the tests close a WebSocket."""


def _disconnect(code: int) -> Message:
    return {"type": "websocket.disconnect", "code": code}


SPEC_VERSION: Final = Topic(
    "`spec_version` in the scope",
    "2.3 for HTTP, 2.4 for WebSocket",
    SAME,
    "2.1 and 2.3",
    "frameworks check it, so they behave as they do on uvicorn",
)
EXTENSIONS: Final = Topic(
    "`extensions` in the scope of a request",
    "missing",
    SAME,
    "present, and empty",
    "a missing key means the same (it is optional in the spec)",
)
ROOT_PATH: Final = Topic(
    "`path` and `raw_path` under a `root_path`",
    "those of the URL",
    "the `root_path` is put before them",
    SAME,
    "the URL of the client already contains the whole path, including any prefix",
)
METHODS: Final = Topic(
    "a method that is not in any standard",
    "reaches the app",
    "400",
    SAME,
    "the app decides what it means",
)
CONTINUE: Final = Topic(
    "`Expect: 100-continue`",
    "100 is sent when the app asks for the body",
    SAME,
    "100 is sent immediately, even if the app refuses without reading",
    "the header exists to ask before the body is sent",
)
STATUSES: Final = Topic(
    "a status of 600 or more",
    "reaches the client",
    "the connection is cut",
    SAME,
    "the spec sets no limit, and the client accepts it",
)
PHRASE: Final = Topic(
    "the reason phrase",
    "that of `http.HTTPStatus`",
    SAME,
    "empty",
    "people read `response.reason` and the messages of exceptions",
)
ADDED: Final = Topic(
    "headers that are added to the app's",
    "none but framing",
    "`date`, `server`",
    "`date`, `server`",
    "the client sees what the app sent",
)
TRANSFER_ENCODING: Final = Topic(
    "`transfer-encoding: chunked` and `content-length`, both sent by the app",
    "the `content-length` counts",
    "both are sent, and the client fails with 400",
    "the `transfer-encoding` counts",
    "the ASGI specification says that servers ignore an app's `transfer-encoding`",
)
BODILESS: Final = Topic(
    "a body after a status of 204 or 304",
    "an error in the app",
    SAME,
    "is dropped",
    "the app believes that the body was sent, but no client can get it",
)
AGAIN: Final = Topic(
    "a further `receive()` after the disconnect",
    "returns the disconnect again",
    "the same; for a WebSocket, `websockets` and `wsproto` return 1005 whatever the code was",
    "waits forever",
    "an app that asks twice should not hang; a WebSocket ends only once, with one code",
)
LARGE: Final = Topic(
    "a header of more than 64 KiB",
    "431",
    "is accepted (httptools has no limit)",
    SAME,
    "proxies have lower limits: the failure should show in a test, not in production",
)
BODY_OF_500: Final = Topic(
    "the body of the 500 of an app that fails",
    "`Internal Server Error`",
    SAME,
    "empty",
    "the same as uvicorn",
)
ERRORS: Final = Topic(
    "the exception that a message out of turn raises in the app",
    "`ASGIProtocolError`",
    "`RuntimeError`",
    "`UnexpectedMessageError`; h11's `LocalProtocolError`; or none",
    "all errors of this package have their own classes, so code can tell them from other errors",
)
WORDS: Final = Topic(
    "the message of that exception",
    "that of uvicorn, with the numbers of bytes if it is about a length",
    "its own; `wsproto` has older messages",
    "other messages",
    "these messages are well known, and a web search finds them",
)
PIPELINE: Final = Topic(
    "requests that do not wait for the previous response (pipelining)",
    "400",
    "are answered in their order",
    "are answered in their order",
    "aiohttp's client never does it, so bytes that arrive early are not a request",
)
TWO_KEYS: Final = Topic(
    "`websocket.receive`",
    "has `text` or `bytes`",
    SAME,
    "has both, and one is `None`",
    "the spec allows both, with the same meaning",
)
SUBPROTOCOLS: Final = Topic(
    "several `Sec-WebSocket-Protocol` lines",
    "are one list",
    SAME,
    "the last one counts",
    "RFC 6455, 11.3.4",
)
NO_REASON: Final = Topic(
    "`reason` of a disconnect without a close frame",
    "empty",
    "left out",
    "left out, of every disconnect",
    "an app need not check whether the key exists",
)
CLOSE_CODES: Final = Topic(
    "what the app receives after a close, its own or the client's",
    "its code and reason",
    "the same, but 1005 for the app's own on `websockets`",
    "1006 for every close of the client, 1000 for the app's own; no reason",
    "an app should know why its client closed",
)
ABNORMAL: Final = Topic(
    "a connection that ends without a close frame",
    "1006",
    "the same; 1005 on `wsproto`",
    SAME,
    "1005 means a close frame without a code (RFC 6455, 7.1.5)",
)
LATE_SEND: Final = Topic(
    "`send()` on a WebSocket after the client has disconnected",
    "an `OSError`",
    "the same; on `websockets` also nothing, or a `RuntimeError` after the app has received the disconnect",
    "does nothing",
    "spec 2.4",
)
STARVES: Final = Topic(
    "a `send()` that has nothing to do any more",
    "raises",
    "the same; on `wsproto` it does not raise before the next turn of the event loop, and never yields to the loop",
    "never yields to the event loop",
    "an app that only sends should not block all other tasks",
)
NO_CLOSE: Final = Topic(
    "an app that returns without closing its WebSocket",
    "1000",
    "the connection is cut",
    "1011",
    "the app has ended, and has not failed",
)
FAILS: Final = Topic(
    "an app that fails after it has accepted",
    "1011",
    "the connection is cut",
    SAME,
    "RFC 6455, 7.4.1 defines this code for it",
)
NOT_UTF8: Final = Topic(
    "text that is not UTF-8",
    "1007 for both",
    "1007 for the client and 1006 for the app on `websockets`; the connection is closed on `wsproto`",
    "the connection is closed",
    "the client should know what is wrong, and the app should know the same",
)
TOO_BIG: Final = Topic(
    "a message of more than 16 MiB",
    "1009 for both",
    "the same; 1006 for the app on `websockets`",
    "1009 for the client, 1006 for the app",
    "the app gets the same code as the client",
)
DENIED: Final = Topic(
    "an app that has refused a WebSocket",
    "receives the disconnect (1006)",
    SAME,
    "1000 after a close; after a denial response it waits until the client disconnects",
    "the WebSocket was never open, and there is nothing to wait for",
)
LATE_ACCEPT: Final = Topic(
    "a denial response that is begun and not finished",
    "sent, and an accept after it is an error",
    SAME,
    "is dropped when the app accepts",
    "one request has one answer",
)
TWICE: Final = Topic(
    "an app that returns without an answer to a WebSocket's request",
    "500",
    "the same; on `websockets` a 500 and then 101",
    SAME,
    "one request has one answer",
)
STARTUP_ERROR: Final = Topic(
    "a startup that fails",
    "`LifespanError`",
    "a record in the log, and `SystemExit`",
    "`LifespanFailureError`",
    "a test must be able to see it",
)
UNSUPPORTED: Final = Topic(
    "an exception during the startup",
    'an error; with `lifespan="auto"` an app that raises before its first `receive()` is served without a lifespan',
    'an error; with `lifespan="auto"` the app is served without a lifespan',
    "the app is served without a lifespan",
    "a startup that raises has failed; it does not mean that the app has no startup",
)


UVICORNS: Final = (UVICORN_WEBSOCKETS, UVICORN_WSPROTO)

Rows = dict[tuple[str, str], Row]


def _scope() -> Rows:
    request = "test_the_scope_of_a_request_says_what_was_asked"
    return {
        (HYPERCORN, f"{request}: version"): Row({"version": "3.0", "spec_version": "2.1"}, SPEC_VERSION),
        (HYPERCORN, "test_the_scope_says_what_was_asked: version"): Row(
            {"version": "3.0", "spec_version": "2.3"}, SPEC_VERSION
        ),
        (HYPERCORN, f"{request}: keys"): Row(
            {
                "type", "asgi", "http_version", "scheme", "server", "client", "root_path", "path", "raw_path",
                "query_string", "headers", "method", "state", "extensions",
            },
            EXTENSIONS,
        ),
        (UVICORN, "test_the_root_path_and_the_path_of_a_request"): Row(("/api/users", b"/api/users"), ROOT_PATH),
        **{(way, "test_the_root_path_and_the_path"): Row(("/api/room", b"/api/room"), ROOT_PATH) for way in UVICORNS},
        (HYPERCORN, "test_subprotocols_are_those_of_all_the_header_lines: 2 lines"): Row(["v2.chat"], SUBPROTOCOLS),
    }  # fmt: skip


def _http() -> Rows:
    turn = "test_an_http_message_out_of_turn_is_an_error_that_says_what_was_expected"
    late, early = "ASGIHTTPState.CLOSED", "ASGIHTTPState.REQUEST"
    hypercorn = {
        "a body before the start": f"Unexpected message type, http.response.body given the state {early}",
        "a second start": "Unexpected message type, http.response.start given the state ASGIHTTPState.RESPONSE",
        "a message after the end": f"Unexpected message type, http.response.body given the state {late}",
        "a body that is too long": "Too much data for declared Content-Length",
        "a body that is too short": "Too little data for declared Content-Length",
    }
    bodiless = ("a body after a 204", "a body after a 304")
    both = "test_a_transfer_encoding_of_the_apps_own_beside_a_content_length"
    return {
        (UVICORN, "test_a_method_that_nobody_knows"): Row(400, METHODS),
        (HYPERCORN, "test_an_app_that_answers_without_reading_does_not_ask_for_the_body"): Row(100, CONTINUE),
        (UVICORN, "test_every_status_reaches_the_client: 600"): Row(None, STATUSES),
        (UVICORN, "test_every_status_reaches_the_client: 999"): Row(None, STATUSES),
        (HYPERCORN, "test_the_reason_phrase_is_that_of_the_status"): Row("", PHRASE),
        **{(way, "test_the_headers_that_are_added"): Row({"date", "server"}, ADDED) for way in (UVICORN, HYPERCORN)},
        **{
            (way, "test_requests_that_do_not_wait_for_the_answer_to_the_one_before"): Row(
                [(200, b"0"), (200, b"1"), (200, b"2")], PIPELINE
            )
            for way in (UVICORN, HYPERCORN)
        },
        (HYPERCORN, "test_each_further_receive_tells_that_the_client_has_left: waits"): Row(True, AGAIN),
        (HYPERCORN, "test_each_further_receive_tells_that_the_client_has_left: messages"): Row(
            [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}], AGAIN
        ),
        (UVICORN, "test_a_large_header_is_read_or_refused: 100 KiB"): Row(200, LARGE),
        (HYPERCORN, "test_an_app_that_fails_before_the_start_is_500: body"): Row(b"", BODY_OF_500),
        **{(UVICORN, f"{turn}: {case}, type"): Row("RuntimeError", ERRORS) for case in (*hypercorn, *bodiless)},
        **{
            (UVICORN, f"{turn}: {case}"): Row("Response content longer than Content-Length", WORDS)
            for case in ("a body that is too long", *bodiless)
        },
        (UVICORN, f"{turn}: a body that is too short"): Row("Response content shorter than Content-Length", WORDS),
        **{
            (HYPERCORN, f"{turn}: {case}, type"): Row(
                "UnexpectedMessageError" if words.startswith("Unexpected") else "LocalProtocolError", ERRORS
            )
            for case, words in hypercorn.items()
        },
        **{(HYPERCORN, f"{turn}: {case}"): Row(words, WORDS) for case, words in hypercorn.items()},
        **{(HYPERCORN, f"{turn}: {case}, type"): Row("NoneType", BODILESS) for case in bodiless},
        **{(HYPERCORN, f"{turn}: {case}"): Row("None", BODILESS) for case in bodiless},
        (UVICORN, both): Row(400, TRANSFER_ENCODING),
        (HYPERCORN, both): Row(({"Transfer-Encoding"}, b"ok"), TRANSFER_ENCODING),
    }


def _lifespan() -> Rows:
    test = "test_an_app_whose_startup_fails_is_not_served"
    return {
        **{
            (UVICORN, f"{test}: {case}"): Row("SystemExit", STARTUP_ERROR)
            for case in ("auto, startup.failed", "on, startup.failed", "on, startup", "on, unsupported")
        },
        **{
            (HYPERCORN, f"{test}: {case}"): Row("LifespanFailureError", STARTUP_ERROR)
            for case in ("auto, startup.failed", "on, startup.failed")
        },
        (UVICORN, f"{test}: auto, startup"): Row("", UNSUPPORTED),
        **{
            (HYPERCORN, f"{test}: {case}"): Row("", UNSUPPORTED)
            for case in ("auto, startup", "on, startup", "on, unsupported")
        },
    }


def _ends() -> Rows:
    """How a WebSocket ends for the app."""
    left = {
        "test_a_client_that_vanishes_is_1006",
        "test_a_session_that_closes_with_an_open_socket_disconnects_it",
        "test_a_client_that_ends_the_connection_without_a_close_frame_is_1006",
    }
    closes = (
        "test_messages_of_both_kinds_arrive_as_they_were_sent",
        "test_a_pong_that_nobody_asked_for_is_ignored",
        "test_a_receive_that_times_out_leaves_the_websocket_open",
        "test_an_app_that_catches_the_error_goes_on",
        "test_a_message_over_the_clients_own_limit_closes_with_1009",
        "test_a_close_without_a_code_is_1005",
        "test_the_app_is_told_the_code_and_the_reason_with_which_the_client_closes",
        "test_messages_sent_before_a_close_are_received_before_the_disconnect",
        "test_after_the_disconnect_each_further_receive_is_told_of_it: first",
    )
    own = (
        *(f"test_the_client_gets_the_code_and_the_reason_with_which_the_app_closes: {code}" for code in CODES),
        "test_without_autoclose_the_client_answers_a_close_when_it_wants",
    )
    early = "test_a_client_that_leaves_before_the_accept_is_1006"
    again = "test_after_the_disconnect_each_further_receive_is_told_of_it"
    flood = "test_an_app_that_is_in_send_when_the_client_leaves_gets_an_oserror"
    refused = ("test_a_close_before_the_accept_is_403", "test_a_denial_has_its_own_status_headers_and_body")
    unheard = (refused[1], "test_the_client_of_a_websocket_gets_the_status_and_the_headers_of_a_denial")
    return {
        **{(UVICORN_WSPROTO, test): Row(_disconnect(1005), ABNORMAL) for test in left},
        **{(HYPERCORN, test): Row(_disconnect(1006), NO_REASON) for test in (early, *left)},
        **{(HYPERCORN, test): Row(_disconnect(1006), CLOSE_CODES) for test in closes},
        **{(HYPERCORN, test): Row(_disconnect(1000), CLOSE_CODES) for test in own},
        **{(UVICORN_WEBSOCKETS, test): Row(_disconnect(1005), CLOSE_CODES) for test in own},
        **{(way, test): Row(_disconnect(1006), NO_REASON) for way in UVICORNS for test in (early, *refused)},
        **{(HYPERCORN, test): Row(_disconnect(1000), DENIED) for test in refused},
        **{(HYPERCORN, f"{test}: waits for the client to leave"): Row(True, DENIED) for test in unheard},
        **{(way, f"{early}: accept"): Row(None, LATE_SEND) for way in (UVICORN_WEBSOCKETS, HYPERCORN)},
        **{(way, f"{again}: further"): Row([_disconnect(1005)], AGAIN) for way in UVICORNS},
        (HYPERCORN, f"{again}: further"): Row([], AGAIN),
        (HYPERCORN, f"{again}: waits"): Row(True, AGAIN),
        (UVICORN_WEBSOCKETS, "test_sending_after_the_client_has_left_raises_an_oserror"): Row(RuntimeError, LATE_SEND),
        (HYPERCORN, "test_sending_after_the_client_has_left_raises_an_oserror"): Row(None, LATE_SEND),
        (HYPERCORN, f"{flood}: error"): Row(None, LATE_SEND),
        **{(way, f"{flood}: must give way"): Row(True, STARVES) for way in (UVICORN_WSPROTO, HYPERCORN)},
    }


def _websocket() -> Rows:
    turn = "test_a_message_out_of_turn_is_an_error_that_says_what_was_expected"
    returns = "test_an_app_that_returns_without_closing_closes_with_1000"
    utf8 = "test_text_that_is_not_utf8_is_refused_with_1007"
    cut = (WSMsgType.CLOSED, 1006)
    older = {
        "a message before the accept": "Expected ASGI message 'websocket.accept', 'websocket.close' or "
        "'websocket.http.response.start' but got 'websocket.send'.",
        "an unknown type before the accept": "Expected ASGI message 'websocket.accept', 'websocket.close' or "
        "'websocket.http.response.start' but got 'http.response.start'.",
        "a message after the close": "Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.",
        "a second close": "Unexpected ASGI message 'websocket.close', after sending 'websocket.close'.",
    }
    hypercorn = {
        case: f"Unexpected message type, {got} given the state ASGIWebsocketState.{state}"
        for case, got, state in (
            ("a second accept", "websocket.accept", "CONNECTED"),
            ("an unknown type once accepted", "websocket.receive", "CONNECTED"),
            ("a response once accepted", "websocket.http.response.start", "CONNECTED"),
            ("a message before the accept", "websocket.send", "HANDSHAKE"),
            ("an unknown type before the accept", "http.response.start", "HANDSHAKE"),
            ("a message after the close", "websocket.send", "CLOSED"),
        )
    }
    all_cases = (*hypercorn, "a second close", "an accept in a denial")
    return {
        (HYPERCORN, "test_the_keys_of_a_received_message"): Row([{"type", "text", "bytes"}] * 2, TWO_KEYS),
        **{(way, returns): Row(cut, NO_CLOSE) for way in UVICORNS},
        (HYPERCORN, returns): Row((WSMsgType.CLOSE, 1011), NO_CLOSE),
        **{(way, "test_an_app_that_fails_closes_with_1011"): Row(cut, FAILS) for way in UVICORNS},
        **{(way, utf8): Row(cut, NOT_UTF8) for way in (UVICORN_WSPROTO, HYPERCORN)},
        **{(way, f"{utf8}: app"): Row(1006, NOT_UTF8) for way in (UVICORN_WEBSOCKETS, HYPERCORN)},
        **{
            (way, "test_a_message_over_16_mib_is_refused_with_1009"): Row(1006, TOO_BIG)
            for way in (UVICORN_WEBSOCKETS, HYPERCORN)
        },
        **{(way, f"{turn}: {case}, type"): Row("RuntimeError", ERRORS) for way in UVICORNS for case in all_cases},
        **{(UVICORN_WSPROTO, f"{turn}: {case}"): Row(words, WORDS) for case, words in older.items()},
        **{(HYPERCORN, f"{turn}: {case}, type"): Row("UnexpectedMessageError", ERRORS) for case in hypercorn},
        **{(HYPERCORN, f"{turn}: {case}"): Row(words, WORDS) for case, words in hypercorn.items()},
        **{(HYPERCORN, f"{turn}: {case}, type"): Row("NoneType", ERRORS) for case in all_cases[-2:]},
        **{(HYPERCORN, f"{turn}: {case}"): Row("None", ERRORS) for case in all_cases[-2:]},
        (HYPERCORN, f"{turn}: an accept in a denial, accepts"): Row(True, LATE_ACCEPT),
        (HYPERCORN, "test_an_app_that_catches_the_error_goes_on: words"): Row("Unexpected message type", WORDS),
        (UVICORN_WEBSOCKETS, "test_all_that_such_a_client_is_sent_is_one_response: say_nothing"): Row(
            b"Internal Server ErrorHTTP/1.1 101 Switching Protocols", TWICE
        ),
        **{
            (HYPERCORN, f"test_all_that_such_a_client_is_sent_is_one_response: {app}"): Row(b"", BODY_OF_500)
            for app in ("fail", "say_nothing")
        },
    }


DIFFERENCES: Final[Rows] = {**_scope(), **_http(), **_lifespan(), **_ends(), **_websocket()}


def topics() -> list[Topic]:
    """Return each topic once, in the order of the rows."""
    return list(dict.fromkeys(row.topic for row in DIFFERENCES.values()))


def page_table() -> str:
    """Return the table of docs/parity.md."""
    head = ("behaviour", "asgi-connector", "uvicorn", "hypercorn", "reason")
    lines = [head, ("---",) * len(head), *topics()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


class Expected:
    """The expected results of one test on one server."""

    asked: Final[set[tuple[str, str]]] = set()
    """The rows that any test has looked up."""

    def __init__(self, way: str, test: str) -> None:
        self._way = way
        self._test = test

    def __call__(self, usual: T, case: str = "") -> T:
        key = (self._way, f"{self._test}: {case}" if case else self._test)
        if key not in DIFFERENCES:
            return usual
        self.asked.add(key)
        instead: Any = DIFFERENCES[key].instead
        assert instead != usual, f"no difference: {key}"
        return cast(T, instead)


def rows_of(module: Any) -> set[tuple[str, str]]:
    """Return the rows for the tests of a module."""
    return {(way, test) for way, test in DIFFERENCES if hasattr(module, test.partition(": ")[0])}


def check_that_each_row_was_looked_up(request: pytest.FixtureRequest) -> None:
    """Check that the tests used each row of the module. The last test of the module calls this."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the tests of the file run in several processes, and each has seen a part of the table")
    config = request.config
    if (
        config.getoption("keyword")
        or config.getoption("lf", False)
        or any("::" in argument for argument in config.args)
    ):
        pytest.skip("only a part of the file was asked for")
    assert rows_of(request.module) <= Expected.asked


if __name__ == "__main__":
    print(page_table(), end="")
