"""One-shot weights prefetcher: ModelScope to a verified, published snapshot on a volume."""

__version__ = "0.1.0"
