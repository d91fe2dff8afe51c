"""Four bugs, to see how `faults.explore()` finds them: each service has a form with them, ``create_app(buggy=True)``.

All four are of a kind that no test of an undisturbed shop finds.
"""

from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from starlette.requests import Request
from starlette.responses import Response

from .orders import Checkout
from .payments import Stripe
from .stock import one, transaction


class BuggyCheckout(Checkout):
    """Two bugs: a charge, and a reservation, that was made and whose answer is lost is not undone."""

    async def _step(self, undo: AsyncExitStack, url: str, **settings: Any) -> Any:
        answer = await self._call("PUT", url, **settings)
        undo.push_async_callback(self._attempt, "DELETE", url)
        return answer


class BuggyStripe(Stripe):
    """A bug: it tries a second time, and Stripe does not know that it is the same charge."""

    async def charge(self, order: str, form: dict[str, str]) -> str:
        try:
            return await super().charge(f"{order}-first", form)
        except aiohttp.ClientError:
            return await super().charge(f"{order}-second", form)


async def buggy_release(request: Request) -> Response:
    """A bug: the goods are put back once more when the request comes a second time."""
    async with transaction(request) as connection:
        query = "SELECT quantity, item FROM reservations WHERE id = ?"
        if row := await one(connection, query, request.path_params["key"]):
            await connection.execute("UPDATE items SET available = available + ? WHERE name = ?", tuple(row))
    return Response(status_code=204)
