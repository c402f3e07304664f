"""The engine: what a job is, and how a run of it goes, from the first count to the report.

| module     | what lives there                                                                  |
|------------|-----------------------------------------------------------------------------------|
| `job`      | what a job author writes, and the values that it exchanges with the runner        |
| `sources`  | where batches come from: `Keyset`, `Stream`, `Claims`                             |
| `runner`   | one run: transactions, refused rows, totals, verification, outcome and exit code  |
| `pipeline` | takes batches from the source and fetches them ahead of the writer                |
| `session`  | connections and transactions; every setting lasts for one transaction             |
| `runs`     | the run's row in the database: heartbeat, requests to pause or stop, dead runs    |
| `tables`   | the tables and privileges that a job needs                                        |
| `stop`     | the stop flag and the signals that set it                                         |
| `report`   | the report and its three forms                                                    |
| `progress` | what a run says while it works: a bar on a terminal, lines in a log               |
| `metrics`  | the run's metrics, as a file for monitoring                                       |
| `ping`     | asks a health-check service at the start and the end of a run                     |
| `log`      | JSON lines and Sentry                                                             |
| `errors`   | the exceptions of this package                                                    |

It knows no domain. Of the rest of the project it imports the settings and the version alone; a test
holds that.
"""
