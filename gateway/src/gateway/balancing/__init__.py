"""Choose the worker for a request. Decisions only: nothing here opens a connection, counts requests or logs."""
