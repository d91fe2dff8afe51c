"""One request and its result, as users read it, and what is secret in it. May import _aiohttp and the layers below."""
