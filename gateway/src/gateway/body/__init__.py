"""A request's body: its bytes within bounds, decoded, and what in them the gateway must know. No I/O but one thread."""
