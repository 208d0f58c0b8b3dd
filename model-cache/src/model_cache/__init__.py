"""The weights job: it downloads a model's files, verifies them and publishes them on a volume. Each room imports only
rooms below it (import-linter holds that).

| room        | what lives there                                                              |
|-------------|-------------------------------------------------------------------------------|
| `__main__`  | the process: settings in, lines and an exit code out                          |
| `job`       | one run, from a name on the hub to a published snapshot                       |
| `commands`  | what an operator runs beside it: export, inventory, prune, serve              |
| `sources`   | where files come from                                                         |
| `settings`  | what the environment says; nothing else reads it                              |
| `telemetry` | how far a run has come, and who is told                                       |
| `storage`   | the weights volume                                                            |
| `manifest`  | what a snapshot consists of, and the documents that say so                    |
| `http`      | a small HTTP server                                                           |
| `errors`    | every way a run can fail, each with its exit code                             |
"""

__version__ = "0.1.0"
