"""Which worker takes a request. Decisions only: nothing here opens a connection, counts or logs."""
