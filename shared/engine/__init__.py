"""The engine: what a job is, and how a run of it goes, from first count to report.

It knows no domain: nothing here imports the rest of the project.
"""
