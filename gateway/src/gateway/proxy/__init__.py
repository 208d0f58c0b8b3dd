"""One request from its head to its last byte: which worker, what is sent, what comes back, what is written down.
It knows nothing of FastAPI, and of sockets only what `server` and `upstream` tell it."""
