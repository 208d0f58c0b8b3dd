"""Background loops: discovery by DNS and health probes. Nothing here is called for a request."""
