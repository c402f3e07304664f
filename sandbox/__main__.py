"""``python -m sandbox demo`` demonstrates the jobs; ``python -m sandbox up`` lets you run them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox import dashboard, demo, surroundings
from sandbox.library import LibrarySpec
from sandbox.world import Spec


def main() -> int:
    """Run the subcommand; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="run the main jobs in a small world and explain each step")
    page = commands.add_parser(
        "dashboard", help="audit a small world and serve the dashboard on it"
    )
    page.add_argument("--port", type=int, default=8501, help="the port to listen on (8501)")
    up = commands.add_parser("up", help="start a world and keep it until Ctrl-C")
    up.add_argument("--size", type=int, default=2_000, help="entities in the world (2000)")
    up.add_argument("--library-size", type=int, default=1_000, help="rows of the library (1000)")
    up.add_argument("--seed", type=int, default=1, help="determines the content of the world (1)")
    up.add_argument(
        "--seconds-per-event",
        type=float,
        default=1.0,
        help="seconds that the indexer takes for each event (1)",
    )
    up.add_argument(
        "--tcp", action="store_true", help="let PostgreSQL also listen on TCP, for containers"
    )
    up.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="write the settings to FILE, for docker run --env-file, instead of printing them",
    )
    arguments = parser.parse_args()
    if arguments.command == "demo":
        return demo.main()
    if arguments.command == "dashboard":
        return dashboard.main(arguments.port)
    return _up(arguments)


def _up(arguments: argparse.Namespace) -> int:
    spec = Spec(seed=arguments.seed, size=arguments.size)
    library = LibrarySpec(seed=arguments.seed, size=arguments.library_size)
    env_file: Path | None = arguments.env_file
    stop_flag = surroundings.stop_flag()
    with (
        surroundings.start(spec, library, tcp=arguments.tcp) as around,
        around.indexing(seconds_per_event=arguments.seconds_per_event),
    ):
        if env_file is None:
            for name, value in around.environment.items():
                print(f"export {name}={shlex.quote(value)}")
        else:
            _write_env_file(env_file, around.environment)
            print(f"# The settings are in {env_file}.")
        print("# Running, with a stand-in for artwork-indexer. Ctrl-C stops it.", flush=True)
        stop_flag.wait()
    if env_file is not None:
        env_file.unlink(missing_ok=True)
    return 0


def _write_env_file(path: Path, environment: Mapping[str, str]) -> None:
    """Write settings in the form of `docker run --env-file`, readable only for the owner."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in environment.items())


if __name__ == "__main__":
    sys.exit(main())
