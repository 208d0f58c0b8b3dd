"""The loops that look: which workers there are, and how each is. Nothing here is called for a request."""
