"""Options that choose which findings an audit acts on, and how."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from artwork_backfill.jobs.command import F, matched_checks, option
from artwork_backfill.shared.audit.catalogue import (
    Remedy,
    Severity,
    UnknownCheck,
    parse_remedies,
)
from artwork_backfill.shared.audit.decide import Policy


def policy_options(command: F) -> F:
    """Add these options to a command, which gets the resulting `Policy` as `policy`."""

    @wraps(command)
    def with_policy(*args: Any, **options: Any) -> Any:
        no_deletions = options.pop("no_deletions")
        delete_from_live = options.pop("delete_from_live")
        if no_deletions and delete_from_live:
            raise click.UsageError(
                "--no-deletions and --delete-from-live exclude each other: pass one of them"
            )
        policy = Policy(
            matched_checks(options.pop("ignored"), "--ignore"),
            _severity(options.pop("min_severity")),
            _chosen(options.pop("remedies")),
            deletions=not no_deletions,
            delete_from_live=delete_from_live,
        )
        return command(*args, policy=policy, **options)

    decorated: Callable[..., Any] = with_policy
    for add in reversed(_OPTIONS):
        decorated = add(decorated)
    return decorated  # type: ignore[return-value]


_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    option(
        "--ignore",
        "ignored",
        multiple=True,
        metavar="CHECK",
        envvar="BACKFILL_IGNORE",
        help="Record this check's findings without acting on them. Repeatable; globs such as"
        " 'meta.*'.",
    ),
    option(
        "--min-severity",
        type=click.Choice([severity.label for severity in Severity]),
        default=Severity.MINOR.label,
        envvar="BACKFILL_MIN_SEVERITY",
        help="Record findings below this severity without acting on them.",
    ),
    option(
        "--remedy",
        "remedies",
        multiple=True,
        metavar="CHECK=REMEDY",
        envvar="BACKFILL_REMEDY",
        help="Replace this check's remedy by index, review or record. Repeatable; globs such as"
        " 'item.*=index'.",
    ),
    option(
        "--no-deletions",
        is_flag=True,
        envvar="BACKFILL_NO_DELETIONS",
        help="Queue no delete_image; record images that could be deleted.",
    ),
    option(
        "--delete-from-live",
        is_flag=True,
        envvar="BACKFILL_DELETE_FROM_LIVE",
        help="Also delete foreign images from items of live entities if their owner has the same"
        " image; by default, a person decides. See docs/beside-musicbrainz.md for the risk.",
    ),
)


def _chosen(remedies: tuple[str, ...]) -> dict[str, Remedy]:
    try:
        return parse_remedies(remedies)
    except UnknownCheck as error:
        raise click.BadParameter(str(error), param_hint="--remedy") from None


def _severity(label: str) -> Severity:
    return next(severity for severity in Severity if severity.label == label)
