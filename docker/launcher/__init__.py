"""Process 1 of every worker container: checks the weights, starts vLLM and keeps it running.

| room         | what lives there                                                                  |
|--------------|-----------------------------------------------------------------------------------|
| `main`       | the two programs: a worker, and its health check                                  |
| `supervisor` | the main loop, which uses all rooms below                                         |
| `resources`  | GPUs and their locks, the weights and the lock on their snapshot                  |
| `status`     | log, state file, ops port, how long earlier starts took                           |
| `engine`     | requests to vLLM, what its log and metrics say, which requests it admits          |
| `process`    | the duties of process 1, starting and ending vLLM, its output, why it ended       |
| `files`      | safe reading of files that other containers may have written                      |
| `settings`   | the variables `LAUNCHER_*`                                                        |

Each imports only what stands below it; `engine` and `process` know nothing of each other (import-linter holds both).
Standard library only: the package runs under whatever Python a vLLM image brings, from 3.11 on."""
