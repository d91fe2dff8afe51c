"""A service of canned answers, for one that is not there."""
