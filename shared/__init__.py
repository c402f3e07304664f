"""The library the jobs share: it knows how to run a job, and imports nothing from ``jobs``."""
