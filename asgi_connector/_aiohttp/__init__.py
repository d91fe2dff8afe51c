"""Everything of aiohttp's that is private. May import _services and what is below it.

It is the same in every aiohttp from 3.13 to 3.14. The tests in ``tests/test_aiohttp.py`` fail if it moves.
"""
