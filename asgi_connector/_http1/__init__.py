"""The heads of requests and responses, and handshakes: pure functions. May import the modules at the top level only."""
