"""All uses of aiohttp's private names. Imports _services and the layers below it.

These names are the same in aiohttp 3.13 to 3.14. The tests in ``tests/aiohttp/test_aiohttp.py`` fail if one changes.
"""
