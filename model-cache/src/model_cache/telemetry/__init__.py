"""How far a run has come, and who is told: standard output, and the port of /progress and /metrics. Changes no run."""
