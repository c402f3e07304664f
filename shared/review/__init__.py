"""What people ask of the audit's tables, and what they may do about it.

| module       | what lives there                                                          |
|--------------|---------------------------------------------------------------------------|
| `questions`  | reads: one function per question, with filters in and typed rows out      |
| `actions`    | changes: one transaction each, refused where a row is not as it was shown |
| `staff`      | what only archive.org's staff can mend, one instruction at a time         |

Nothing here prints or parses: command lines and web pages are made from these.
"""
