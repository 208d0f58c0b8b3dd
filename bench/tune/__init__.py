"""`make tune`: looks for values of a slug's serve.yaml that do better on this host, and writes them with evidence.

`option` and `options.yaml` say what is tried, `search` decides what is tried next, `goal` what is better, `variant`
writes a serve.yaml, `journal` keeps what was measured, `engine` starts vLLM and measures it, `tuning` does all."""
