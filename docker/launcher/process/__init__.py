"""Processes as the kernel has them: what is expected of process 1, one vLLM with its output, why it ended.

Nothing here asks vLLM anything.
"""
