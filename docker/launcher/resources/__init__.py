"""What a start needs and other containers share: GPUs and their locks, the weights and the lock on their snapshot."""
