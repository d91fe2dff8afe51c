"""What is mounted: host patterns, mounts, the table, and lifespans. May import the modules at the top level only."""
