"""Process 1 of every worker container: checks the weights, starts vLLM and keeps it running.

| module       | noun                                                                  |
|--------------|-----------------------------------------------------------------------|
| `main`       | the two programs: a worker, and the question after its health         |
| `settings`   | what the environment says (`LAUNCHER_*`); nothing else reads it       |
| `weights`    | a published snapshot, and whether its files are still what READY says |
| `gpus`       | the GPUs this container sees                                          |
| `slots`      | this worker's hold on GPUs, by locks that all workers of a host see   |
| `phases`     | where a start-up stands, read from vLLM's own log lines (pure)        |
| `classify`   | why a run of vLLM ended (pure)                                        |
| `backoff`    | how long to wait before the next run (pure)                           |
| `init`       | signals and orphans: what the kernel expects of process 1             |
| `aside`      | work that may wait, done by a thread while process 1 stays awake      |
| `process`    | one running vLLM: its process group and its output                    |
| `outlet`     | where output goes: a reader that has stopped reading stops nobody     |
| `kin`        | the processes below another one                                       |
| `health`     | questions to vLLM's `/health`                                         |
| `question`   | one question to vLLM that nobody waits for                            |
| `admission`  | who is let in: nobody but the launcher before ready, nobody at the end |
| `warming`    | what vLLM is sent through before it is ready                          |
| `signs`      | what shows that a vLLM that is warmed lives                           |
| `pulse`      | whether vLLM gets anywhere, from those answers (pure)                 |
| `watch`      | asks and judges while vLLM is ready                                   |
| `files`      | files that others write too: no link followed, bounded, replaced whole |
| `documents`  | JSON that others may have written, with every type checked (pure)     |
| `state`      | the state file that `python3 -m launcher health` and people read      |
| `progress`   | the present run's phase, kept, logged and written                      |
| `logs`       | the launcher's own lines, one JSON object each                        |
| `supervisor` | the loop that joins them                                              |

Standard library only: the package runs under whatever Python a vLLM image brings, from 3.11 on.
"""
