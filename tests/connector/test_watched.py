"""A connector that is watched from the thread of a test runner."""

import asyncio
import threading

import pytest

from asgi_connector._connector.watched import Watched, run_in
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.sessions import connector_of, fetch


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


async def test_only_the_apps_of_recorded_calls_are_told_to_wait() -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with session_to(app, lifespan="off") as session:
        connector = connector_of(session)
        watched = Watched(connector, is_new=False)
        not_recorded = asyncio.create_task(fetch(session))
        await called.wait()
        called.clear()
        with connector.record() as journal:
            recorded = asyncio.create_task(fetch(session))
            await called.wait()
            assert list(watched.account(list(journal), 0, []).waiting) == [journal[0]]
        watched.end()
        go_on.set()
        await asyncio.gather(not_recorded, recorded)
