"""Questions about the audit's tables, and the actions of people.

| module        | contents                                                                   |
|---------------|----------------------------------------------------------------------------|
| `questions`   | reads: the lists of reviews and failed events, and everything about an entity |
| `lists`       | a list of rows: its pages, its length, and the kinds of its rows           |
| `actions`     | changes: one transaction each, refused if a row has changed since it was shown |
| `requeueing`  | requeueing of failed events                                                |
| `runs`        | runs and holds, and requests to them                                       |
| `status`      | the progress of the audit                                                  |
| `explain`     | what an audit of one entity would find                                     |
| `export`      | tasks that only archive.org's staff can do                                 |
| `spreadsheet` | rows as CSV                                                                |

Nothing here prints or parses; command line and dashboard are built on it.
"""
