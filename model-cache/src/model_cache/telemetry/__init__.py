"""How far a run has come, and who is told: standard output and the port of /progress and /metrics.

Nothing here changes what the run does.
"""
