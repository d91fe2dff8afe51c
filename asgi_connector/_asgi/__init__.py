"""The server end, which runs an ASGI app on a connection. Imports _aiohttp and the layers below it."""
