"""Trying failures: which calls there are, which faults are tried on them, and what came of it. May import _injection
and the layers below it."""
