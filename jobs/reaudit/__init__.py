"""The job that has entities audited again whose last audit was long ago."""
