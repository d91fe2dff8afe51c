"""A check that the package leaves nothing in the event loop."""

import asyncio
from typing import Any


def no_task_and_no_timer_is_left() -> None:
    tasks = asyncio.all_tasks()
    assert tasks == {asyncio.current_task()}, f"tasks left over: {tasks}"
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])  # asyncio's own loop only
    left = [timer for timer in timers if not timer.cancelled() and not _is_aiohttps(timer)]
    assert not left, f"timers left over: {left}"


def _is_aiohttps(timer: Any) -> bool:
    """Whether *timer* is a `total` timeout, which aiohttp 3.13 leaves when `on_request_start` is cancelled."""
    return type(getattr(timer._callback, "__self__", None)).__name__ == "TimeoutHandle"
