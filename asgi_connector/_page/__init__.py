"""Exchanges as a page and as a picture: HTML and SVG. May import _export and the layers below it."""
