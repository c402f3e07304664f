"""The job that follows what archive.org itself changes."""
