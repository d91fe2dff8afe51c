"""What shall fail: faults, which requests they affect, and what is done about it. May import all but _connector."""
