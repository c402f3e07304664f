"""``python -m bench [NAME...]`` runs the named benchmarks, or all of them."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import bench

#: Modules that are not benchmarks.
_NOT_BENCHMARKS = ("__main__", "commands")


def main() -> None:
    """Run the benchmarks that the command line names."""
    names = [
        module.name
        for module in pkgutil.iter_modules(bench.__path__)
        if module.name not in _NOT_BENCHMARKS
    ]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names)}")
    chosen = parser.parse_args().names or names
    for name in chosen:
        if name not in names:
            parser.error(f"there is no benchmark {name!r}: choose from {', '.join(names)}")
    for name in chosen:
        importlib.import_module(f"bench.{name}").run()


if __name__ == "__main__":
    main()
