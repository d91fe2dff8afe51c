"""The server end, which runs an ASGI app on a connection. May import _aiohttp and what is below it."""
