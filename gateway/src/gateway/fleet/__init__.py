"""The state of workers, their health and pools, and what clients are told of them. No I/O."""
