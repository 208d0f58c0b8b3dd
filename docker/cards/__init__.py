"""Cards: the declared facts of each slug, which layouts they allow, whether a host fits. Behind `make check-card`."""
