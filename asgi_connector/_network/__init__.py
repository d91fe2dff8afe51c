"""The in-memory transport, and the impairments of its network. Imports nothing else from the package."""
