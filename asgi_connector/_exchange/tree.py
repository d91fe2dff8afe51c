"""Calls below their callers."""

from collections.abc import Iterable, Iterator

from .exchange import Exchange


def in_tree(exchanges: Iterable[Exchange]) -> Iterator[tuple[int, Exchange]]:
    """Yield each exchange after its caller's, with the number of its callers among *exchanges*."""
    exchanges = list(exchanges)
    children: dict[Exchange | None, list[Exchange]] = {}
    included = set(exchanges)
    for exchange in exchanges:
        children.setdefault(exchange.parent if exchange.parent in included else None, []).append(exchange)
    stack = [(0, exchange) for exchange in reversed(children.get(None, []))]
    while stack:
        depth, exchange = stack.pop()
        yield depth, exchange
        stack += [(depth + 1, each) for each in reversed(children.get(exchange, []))]
