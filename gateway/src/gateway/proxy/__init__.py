"""One proxied request from its head to its last byte: choose a worker, send, relay the answer, record the outcome.
Nothing here uses FastAPI or a socket: `server` is the client's side of the wire and `upstream` the worker's."""
