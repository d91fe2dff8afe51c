"""A connector that is watched from the thread of a test runner."""

import asyncio
import threading

import pytest

from asgi_connector._connector.watched import run_in


class ClosedMeanwhile(asyncio.SelectorEventLoop):
    """A loop of another thread, which was closed just after it had said that it runs."""

    said = False

    def is_running(self) -> bool:
        return self.said


def test_a_loop_that_closes_in_between_needs_no_callback_of_its_own() -> None:
    called: list[int] = []
    loop = ClosedMeanwhile()
    loop.close()
    loop.said = True
    run_in(loop, lambda: called.append(threading.get_ident()))
    assert called == [threading.get_ident()]


@pytest.mark.parametrize("in_another_thread", [True, False])
def test_a_callback_runs_in_the_thread_of_the_loop(in_another_thread: bool) -> None:
    called: list[int] = []
    loop = asyncio.new_event_loop()
    if in_another_thread:
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()  # it runs
        run_in(loop, lambda: called.append(threading.get_ident()))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        assert called == [thread.ident]
    else:
        run_in(loop, lambda: called.append(threading.get_ident()))
        assert called == [threading.get_ident()]
    loop.close()
