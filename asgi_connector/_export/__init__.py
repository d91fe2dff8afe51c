"""Exchanges as a file or a picture. May import _exchange and the layers below it."""
