"""vLLM as its own server: its command line, questions to its port, what its log and its metrics say, who is let in.

Nothing here starts or ends a process. `admission` also runs inside vLLM's API server.
"""
