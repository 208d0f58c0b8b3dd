"""Process 1 of every worker container: checks the weights, starts vLLM and keeps it running.

| room         | what lives there                                                                  |
|--------------|-----------------------------------------------------------------------------------|
| `main`       | the two programs: a worker, and the question after its health                     |
| `supervisor` | the loop that joins the rooms                                                     |
| `resources`  | GPUs and their locks, the weights and the lock that keeps them                    |
| `status`     | log, state file, ops port, how long earlier starts took                           |
| `engine`     | questions to vLLM, what its log and metrics say, who is let in                    |
| `process`    | what the kernel expects of process 1, one vLLM and its output, why it ended       |
| `files`      | files that others may have written                                                |
| `settings`   | what the environment says (`LAUNCHER_*`); nothing else reads it                   |

Each imports only what stands below it; `engine` and `process` know nothing of each other (import-linter holds both).
Standard library only: the package runs under whatever Python a vLLM image brings, from 3.11 on.
"""
