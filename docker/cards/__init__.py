"""Cards: the declared facts of each slug, what is legal by them, and whether a host fits."""
