"""Checks that a connector is used in its own event loop, and the errors that tell users what to change."""

import asyncio
import sys

from aiohttp import BaseConnector

from asgi_connector._aiohttp.pool import loop_of, running_loop


def loop_for(name: str) -> asyncio.AbstractEventLoop:
    """Return the running event loop, for a new object of the type *name*. Raises `RuntimeError` if none runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"An {name} belongs to the event loop of asyncio that runs when it is made, and none is running: make it "
            "in an async function, in a test in an async fixture, that runs in asyncio and not in trio"
        ) from None


def check_loop(connector: BaseConnector) -> None:
    """Raise `RuntimeError` unless the running event loop is that of *connector*."""
    running, own = running_loop(), loop_of(connector)
    if running is not own:
        where = "where no event loop runs" if running is None else f"from {describe_loop(running)}"
        belongs = f"{connector!r} belongs to {describe_loop(own)}, and cannot be used {where}"
        raise RuntimeError(f"{belongs}{hint_for_pytest()}")


def check_loop_or_none(connector: BaseConnector) -> None:
    """Like `check_loop()`, but also allow a caller without an event loop, such as a fixture that is not async."""
    if running_loop() is not None or loop_of(connector).is_running():
        check_loop(connector)


def check_fallback(fallback: BaseConnector, loop: asyncio.AbstractEventLoop) -> None:
    """Raise `TypeError` unless *fallback* is a connector, and `RuntimeError` unless it belongs to *loop*."""
    if not isinstance(fallback, BaseConnector):
        raise TypeError(f"fallback must be an aiohttp.BaseConnector or None, not {fallback!r}")
    if (other := loop_of(fallback)) is not loop:
        raise RuntimeError(
            f"The fallback {fallback!r} belongs to {describe_loop(other)}, not to {describe_loop(loop)}, which runs"
        )


def hint_for_pytest() -> str:
    """Return advice for a test: with pytest-asyncio, a fixture and its tests may have different loops by accident."""
    if "pytest_asyncio" not in sys.modules:
        return ""
    return (
        ". With pytest-asyncio, the fixture that makes it and each test and fixture that uses it must have the same "
        'loop_scope: @pytest_asyncio.fixture(scope="session", loop_scope="session") and '
        '@pytest.mark.asyncio(loop_scope="session"), say'
    )


def describe_loop(loop: asyncio.AbstractEventLoop) -> str:
    return f"{loop!r} at {id(loop):#x}"  # the reprs of two loops are often equal
