"""How an exchange ended, in the few kinds that pictures and tables distinguish."""

from enum import Enum
from typing import Final

from asgi_connector._exchange.exchange import Exchange

_BAD_REQUEST: Final = 400
_SERVER_ERROR: Final = 500


class Result(Enum):
    """The kind of a result. Its value is the class of elements that show it."""

    GOOD = "good"
    """An answer below 400, or a WebSocket that was closed."""
    DENIED = "denied"
    """An answer from 400 to 499."""
    FAILED = "failed"
    """No complete answer, an answer of 500 or more, or an exception."""
    ABANDONED = "abandoned"
    RUNNING = "running"


def result_of(exchange: Exchange) -> Result:
    state, status = exchange.state, exchange.status or 0
    if state == "failed" or exchange.error is not None or status >= _SERVER_ERROR:
        return Result.FAILED
    if state == "abandoned":
        return Result.ABANDONED
    if state == "running":
        return Result.RUNNING
    return Result.DENIED if status >= _BAD_REQUEST else Result.GOOD


def is_failure(exchange: Exchange) -> bool:
    """Whether an exchange went wrong: it failed, or the client left it."""
    return result_of(exchange) in (Result.FAILED, Result.ABANDONED)
