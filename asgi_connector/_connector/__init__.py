"""aiohttp's side: the two connectors, and what their users call. May import every other folder."""
