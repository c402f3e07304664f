"""Benchmarks, one module each: `make bench`, or `python -m bench NAME...`.

A benchmark's `run` measures on a private, durable PostgreSQL, next to the simplest thing that does
the same, and prints one line: what was measured, the figure, the ratio, and the target. Machines
differ; ratios say more than figures.
"""
