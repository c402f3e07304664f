"""The library of the jobs: it knows how to run a job, and imports nothing from ``jobs``."""
