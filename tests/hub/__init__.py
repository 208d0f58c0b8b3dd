"""A local ModelScope hub: the HTTP contract of its SDK over a directory of models, with faults on demand."""
