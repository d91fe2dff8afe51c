"""Recording: exchanges, the journal that users read, and its formats. May import _aiohttp and the layers below it."""
