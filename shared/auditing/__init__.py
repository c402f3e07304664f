"""Reading for an audit: what the database and archive.org say about entities.

Used by whatever audits: the job, a daemon, and what people ask about one entity. What is compared
and how it is decided is in `shared.audit`, which does no input or output.
"""
