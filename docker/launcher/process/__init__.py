"""Operating-system processes: the duties of process 1, starting and ending vLLM, its output, and why it ended. Nothing
here sends requests to vLLM."""
