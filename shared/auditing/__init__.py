"""Reading what an audit needs: what the database and archive.org say about entities.

Used by the job, by a daemon, and by commands that audit a single entity or a sample. `shared.audit`
compares and decides, without any input or output.
"""
