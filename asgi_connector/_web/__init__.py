"""The server end that runs an aiohttp.web application, by aiohttp's own server protocol."""
