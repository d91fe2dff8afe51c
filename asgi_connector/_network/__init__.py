"""Bytes: the in-memory transport, and what a network does to them. Imports nothing of the package."""
