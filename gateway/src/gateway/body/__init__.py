"""Request bodies: bound, decode and read them for what the gateway must know. No I/O; one thread, in `offload`."""
