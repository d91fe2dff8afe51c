"""Fault injection: the faults, which requests they affect, and how. May import every folder except _connector."""
