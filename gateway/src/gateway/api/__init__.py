"""What clients can rely on: the table of routes, and the errors."""
