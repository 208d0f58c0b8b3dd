"""A small HTTP server with limits on all that a client may do. It does not know what it serves."""
