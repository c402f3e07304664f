"""audit-batch compares MusicBrainz with archive.org, and queues repairs or opens reviews.

| module         | contents                                                                  |
|----------------|---------------------------------------------------------------------------|
| `job`          | the job, composed of the modules below                                    |
| `command`      | its command line; `policy` holds the options that choose what to act on   |
| `claims`       | the table of claims, and the audit's own queries on it                    |
| `guardrails`   | whether entities may be claimed now, and how many                         |
| `writing`      | writing decisions to the tables and to artwork-indexer's queue            |
| `tallies`      | counts of findings and repairs over time                                  |
| `verification` | the verification of a run                                                 |
| `auditor`      | the same audit for a daemon, without the command line                     |

`shared.auditing` reads what an audit needs; `shared.audit` compares and decides without any input
or output.
"""
