"""A shop of four services, and their tests in one process.

- `orders` (FastAPI) places an order: it reserves the goods, charges the customer, and undoes both if a step fails.
- `stock` (Starlette) keeps the goods in a sqlite database, which it opens in its lifespan.
- `payments` (`aiohttp.web`, the oldest of them) charges cards at Stripe.
- `notifications` (Litestar) tells customers over a WebSocket, or sends them a mail with Postmark.

Each service makes its own `aiohttp.ClientSession` and calls the others by host name, as in production. Nothing in the
services is there for the tests: `conftest.py` mounts them at their host names, and `connector.intercept()` answers the
requests of their sessions.

`test_failures.py` lets each call fail, and pairs of calls. It finds the bugs of `buggy.py`, which the services have in
`run_shop(buggy=True)`.

Run the tests:     python -m pytest examples/shop
Run an order:      python -m examples.shop
"""
