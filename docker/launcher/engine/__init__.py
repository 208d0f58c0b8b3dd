"""vLLM as a server: its command line, requests to its port, what its log and metrics say, which requests it admits.
Nothing here starts or ends a process. `admission` also runs inside vLLM's API server."""
