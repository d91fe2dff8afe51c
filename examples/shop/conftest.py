"""The shop as a fixture: it runs for each test, with a database of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .system import Shop, run_shop


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the services, as a deployment makes them."""
    monkeypatch.setenv("STOCK_DATABASE", str(tmp_path / "stock.sqlite3"))
    monkeypatch.setenv("STRIPE_KEY", "sk_test")
    monkeypatch.setenv("PAYMENTS_TIMEOUT", "0.5")


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """The end of the test also fails if an answer of a stub was not asked for, or a service called an unknown host."""
    async with run_shop() as shop:
        yield shop
