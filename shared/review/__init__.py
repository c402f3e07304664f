"""Questions about the audit's tables, and the actions of people.

| module        | contents                                                                   |
|---------------|----------------------------------------------------------------------------|
| `questions`   | reads: one function per question, with filters in and typed rows out       |
| `triage`      | the same lists as groups, with counts                                      |
| `actions`     | changes: one transaction each, refused if a row has changed since it was shown |
| `runs`        | runs and holds, and requests to them                                       |
| `status`      | the progress of the audit                                                  |
| `explain`     | what an audit of one entity would find                                     |
| `export`      | tasks that only archive.org's staff can do                                 |
| `spreadsheet` | rows as CSV                                                                |

Nothing here prints or parses; command line and dashboard are built on it.
"""
