"""The public connectors, which aiohttp and users call. May import every other folder."""
