"""audit-batch: compares what MusicBrainz says with what archive.org holds, and decides on repairs.

| module         | what lives there                                                          |
|----------------|---------------------------------------------------------------------------|
| `job`          | the job, put together from the modules below                              |
| `command`      | the job on the command line; `policy`: the options that say what it acts on |
| `claims`       | the table that entities are claimed from, and the audit's own ways to     |
| `guardrails`   | whether entities may be claimed just now, and how many                    |
| `expectation`  | the expected state and the history of claimed entities, from the database |
| `services`     | the outside services that are asked                                       |
| `examination`  | the actual state from archive.org, the comparison and the decision        |
| `writing`      | decisions into tables and into artwork-indexer's queue                    |
| `tallies`      | counts of what was found, for questions about the past                    |
| `verification` | counting again what the run brought about                                 |
| `auditor`      | the same for a daemon's idle loop, without the command line               |

What is compared and how it is decided is in `shared.audit`, which does no input or output.
"""
