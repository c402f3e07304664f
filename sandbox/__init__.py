"""Local worlds for the demo, the tests and the benchmarks: a PostgreSQL and stand-ins."""
