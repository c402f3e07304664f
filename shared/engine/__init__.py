"""The engine: what a job is, and how a run of it proceeds, from the first count to the report.

| module      | contents                                                                         |
|-------------|----------------------------------------------------------------------------------|
| `job`       | what a job author writes, and the values that it exchanges with the runner       |
| `sources`   | where batches come from: `Keyset`, `Stream`, `Claims`                            |
| `runner`    | one run: transactions, refused rows, totals, verification, outcome and exit code |
| `pipeline`  | takes batches from the source and fetches them ahead of the writer               |
| `session`   | connections and transactions; every setting lasts for one transaction            |
| `runs`      | the run's row in the database: heartbeat, requests to pause or stop, dead runs   |
| `tables`    | the tables and privileges that a job needs                                       |
| `stop`      | the stop flag and the signals that set it                                        |
| `report`    | the report and its formats                                                       |
| `progress`  | the progress of a run: a bar on a terminal, lines in a log                       |
| `metrics`   | the metrics of a run, as a file for monitoring                                   |
| `ping`      | requests to a health-check service at the start and the end of a run             |
| `log`       | JSON lines and Sentry                                                            |
| `redaction` | hides secrets in messages, reports and errors                                    |
| `container` | whether a report is lost with its container                                      |
| `errors`    | the exceptions of this package                                                   |

The engine knows no domain. Of the rest of the project it imports only the settings and the version;
a test checks that.
"""
