"""A connector that is watched from the thread of a test runner."""

import asyncio
import threading

import pytest

from asgi_connector._connector.watched import run_in


class ClosesInBetween(asyncio.SelectorEventLoop):
    """A loop in another thread, which closes when it has just said that it runs."""

    def is_running(self) -> bool:
        self.close()
        return True


def test_a_loop_that_closes_in_between_needs_no_callback_of_its_own() -> None:
    called: list[int] = []
    run_in(ClosesInBetween(), lambda: called.append(threading.get_ident()))
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
