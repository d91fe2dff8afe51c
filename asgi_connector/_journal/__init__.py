"""What happened: exchanges, the journal that users read, and its formats. May import _aiohttp and what is below it."""
