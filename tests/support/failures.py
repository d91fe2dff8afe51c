"""Exceptions that apps raise, and how they come to raise them."""

import asyncio

import pytest

from asgi_connector._types import Receive, Send


class OfTheApp(Exception):
    """An exception that no other code raises."""


def group() -> BaseException:
    return ExceptionGroup("two", [ValueError("one"), OfTheApp("two")])


def base_group() -> BaseException:
    return BaseExceptionGroup("two", [ValueError("one"), pytest.fail.Exception("two")])


async def a_turn_later(receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)


async def raise_cancelled() -> None:
    raise asyncio.CancelledError("of the app's own")


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("of the app's own")
    await asyncio.sleep(0)
