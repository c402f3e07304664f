"""Benchmarks, one module each: `make bench`, or `python -m bench NAME...`.

The `run` of a benchmark measures on a private, durable PostgreSQL, next to the simplest program
that does the same, and prints one line: what was measured, the figure, the ratio, and the target.
Machines differ; ratios say more than figures.
"""
