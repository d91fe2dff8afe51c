"""Exchanges as a file. May import _exchange and the layers below it."""
