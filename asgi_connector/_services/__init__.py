"""The mounted apps: patterns, mounts, lifespans, requests in flight. Imports _network and the top level only."""
