"""What there is: workers, their health, the pools, and what clients are told of them. No I/O."""
