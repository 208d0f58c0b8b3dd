"""Process 1 of every worker container: checks the weights, starts vLLM and keeps it running.

| module       | noun                                                                  |
|--------------|-----------------------------------------------------------------------|
| `settings`   | what the environment says (`LAUNCHER_*`); nothing else reads it       |
| `weights`    | a published snapshot, and whether its files are still what READY says |
| `gpus`       | the GPUs this container sees                                          |
| `slots`      | this worker's hold on GPUs, by locks that all workers of a host see   |
| `phases`     | where a start-up stands, read from vLLM's own log lines (pure)        |
| `classify`   | why a run of vLLM ended (pure)                                        |
| `backoff`    | how long to wait before the next run (pure)                           |
| `init`       | signals and orphans: what the kernel expects of process 1             |
| `process`    | one running vLLM: its process group and its output                    |
| `kin`        | the processes below another one                                       |
| `health`     | one question to vLLM's `/health`                                      |
| `question`   | one question to vLLM that nobody waits for                            |
| `pulse`      | whether vLLM gets anywhere, from those answers (pure)                 |
| `watch`      | asks and judges while vLLM is ready                                   |
| `state`      | the state file that `python3 -m launcher health` and people read      |
| `progress`   | the present run's phase, kept, logged and written                      |
| `logs`       | the launcher's own lines, one JSON object each                        |
| `supervisor` | the loop that joins them                                              |

Standard library only: the package runs under whatever Python a vLLM image brings, from 3.11 on.
"""
