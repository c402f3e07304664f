"""The dashboard command: address, port and access.

The page itself is the package `dashboard`, which needs the extra of that name. The jobs and the
image do not contain it.
"""

from __future__ import annotations

import importlib.util
import os

import click

from artwork_backfill.jobs.cli.review import by_option
from artwork_backfill.jobs.command import UnusableError, musicbrainz_database, option


@click.command(name="dashboard")
@option(
    "--address",
    default="127.0.0.1",
    envvar="BACKFILL_DASHBOARD_ADDRESS",
    help="Listen on this address. An address of another machine needs a login or --read-only.",
)
@option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8501,
    envvar="BACKFILL_DASHBOARD_PORT",
    help="Listen on this port.",
)
@option(
    "--read-only",
    is_flag=True,
    envvar="BACKFILL_DASHBOARD_READ_ONLY",
    help="Make every transaction read only.",
)
@option(
    "--allow",
    multiple=True,
    metavar="EMAIL",
    envvar="BACKFILL_DASHBOARD_ALLOW",
    help="Admit a person who logs in with this e-mail address. Repeatable.",
)
@option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    envvar="BACKFILL_DASHBOARD_HOSTS",
    help="Also answer to this host name, for example that of a proxy. Repeatable.",
)
@option(
    "--pictures/--no-pictures",
    default=True,
    envvar="BACKFILL_DASHBOARD_PICTURES",
    help="Offer to show pictures from archive.org, which the browser loads from there.",
)
@by_option
def command(
    *,
    address: str,
    port: int,
    read_only: bool,
    allow: tuple[str, ...],
    hosts: tuple[str, ...],
    pictures: bool,
    by: str,
) -> None:
    """Serve a web page on which people see the state of the audit and decide reviews.

    Example: artwork-backfill dashboard --port 8501
    """
    if (
        importlib.util.find_spec("streamlit") is None
        or importlib.util.find_spec("artwork_backfill.dashboard") is None
    ):
        raise UnusableError(
            "the dashboard is not installed: run pip install -r requirements-dashboard.txt and"
            " pip install --no-deps . in a checkout"
        )
    from artwork_backfill.dashboard import access, config, queries, serve

    try:
        access.check(
            address, login=access.login_is_configured(), allowed=allow, read_only=read_only
        )
    except access.AccessError as error:
        raise UnusableError(str(error)) from None
    changed = () if read_only else queries.CHANGED
    with musicbrainz_database("dashboard", (*queries.TABLES, *changed)):
        pass
    os.environ[config.READ_ONLY] = "1" if read_only else ""
    os.environ[config.ALLOW] = " ".join(allow)
    os.environ[config.HOSTS] = " ".join(hosts)
    os.environ[config.PICTURES] = "1" if pictures else ""
    os.environ[config.BY] = by
    serve.serve(address, port)
