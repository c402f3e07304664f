"""Compares audits of random mixtures with the rules: ``python -m tests.oracle --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from artwork_backfill.shared.migrations import migrate

from sandbox import schema
from sandbox.postgres import Server, start_server
from sandbox.services import Services
from sandbox.world import Spec
from tests.oracle.comparison import SETTINGS, compare
from tests.oracle.place import Place

_AT_A_TIME = 1_000


def main() -> int:
    """Compare what the arguments ask for; return 1 when audits and rules disagree."""
    names = [setting.name for setting in SETTINGS]
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--mixtures", type=int, default=100, help="how many of each setting")
    parser.add_argument("--first", type=int, help="the number of the first mixture")
    parser.add_argument("--setting", choices=names, action="append", help="all unless given")
    arguments = parser.parse_args()
    failed = False
    with start_server() as server, Services(Spec(size=10, drift_rate=0)) as services:
        template = server.create_database("template")
        with psycopg.connect(template, autocommit=True) as conn:
            schema.create_musicbrainz(conn)
            migrate(conn)
        for place_of, setting in enumerate(SETTINGS):
            if arguments.setting and setting.name not in arguments.setting:
                continue
            first = place_of * 1_000_000 if arguments.first is None else arguments.first
            stop = first + arguments.mixtures
            for start in range(first, stop, _AT_A_TIME):
                numbers = range(start, min(start + _AT_A_TIME, stop))
                began = time.monotonic()
                with _place(server, services) as place:
                    comparison = compare(place, services, setting, arguments.seed, numbers)
                seconds = time.monotonic() - began
                heading = f"{setting.name}, from {start}, {seconds:.0f} s"
                sys.stdout.write(f"{heading}: {comparison}\n\n")
                sys.stdout.flush()
                failed = failed or bool(comparison.differences)
    return int(failed)


@contextmanager
def _place(server: Server, services: Services) -> Iterator[Place]:
    place = Place(server.create_database("mixtures", template="template"), services)
    yield place
    place.close()
    server.drop_database("mixtures")


if __name__ == "__main__":
    sys.exit(main())
