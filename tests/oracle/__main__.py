"""Compares audits of random mixtures with the rules: ``python -m tests.oracle --help``."""

from __future__ import annotations

import argparse
import sys
import time

import psycopg

from artwork_backfill.shared.migrations import migrate
from sandbox import schema
from sandbox.postgres import start_server
from sandbox.services import Services
from sandbox.world import Spec
from tests.oracle.comparison import SETTINGS, compare_together
from tests.oracle.place import Place

_AT_A_TIME = 500


def main() -> int:
    """Compare what the arguments ask for; return 1 when audits and rules disagree."""
    names = [setting.name for setting in SETTINGS]
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--mixtures", type=int, default=100, help="how many of each setting")
    parser.add_argument("--first", type=int, help="the number of the first mixture")
    parser.add_argument("--setting", choices=names, action="append", help="all unless given")
    arguments = parser.parse_args()
    settings = [
        (setting, number * 1_000_000)
        for number, setting in enumerate(SETTINGS)
        if not arguments.setting or setting.name in arguments.setting
    ]
    failed = False
    with start_server() as server, Services(Spec(size=10, drift_rate=0)) as services:
        template = server.create_database("template")
        with psycopg.connect(template, autocommit=True) as conn:
            schema.create_musicbrainz(conn)
            migrate(conn)
        for start in range(0, arguments.mixtures, _AT_A_TIME):
            began = time.monotonic()
            stop = min(start + _AT_A_TIME, arguments.mixtures)
            places = []
            for setting, zero in settings:
                first = zero if arguments.first is None else arguments.first
                dsn = server.create_database(f"mixtures_{zero}", template="template")
                place = Place(dsn, services)
                places.append((setting, place, range(first + start, first + stop)))
            compared = compare_together(places, services, arguments.seed)
            for (setting, place, numbers), comparison in zip(places, compared, strict=True):
                place.close()
                sys.stdout.write(f"{setting.name}, from {numbers[0]}: {comparison}\n\n")
                failed = failed or bool(comparison.differences)
            for _, zero in settings:
                server.drop_database(f"mixtures_{zero}")
            sys.stdout.write(f"{stop} mixtures a setting, {time.monotonic() - began:.0f} s\n\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
