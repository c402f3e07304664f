"""Running the stand-ins in a process of their own, and controlling them.

A separate process, so that it does not share the interpreter lock with the client that is tested or
measured. It ends when its owner leaves the ``with`` block or dies.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from sandbox.changes import Changes
from sandbox.faults import Stats
from sandbox.httpd import serve
from sandbox.library import Library, LibrarySpec
from sandbox.lml import Lml, LmlBehaviour, OldLml
from sandbox.stand_ins import ArchiveBehaviour, ArchiveOrg, MusicBrainz, StandIn
from sandbox.world import Spec, World

ServiceName = Literal["archive", "musicbrainz", "lml", "old_lml", "changes"]

# The directory from which the package can be imported.
_ROOT = Path(__file__).resolve().parent.parent

_TIMEOUT_S = 10.0

# The stand-ins are on this machine, so a proxy for outside connections must not be used.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Services:
    """The stand-ins, which run during the ``with`` block, in which their URLs are known.

    `changes_url` is that of archive.org's Changes API; `old_lml_url` that of an LML that only knows
    single lookups.

    Parameters
    ----------
    spec
        The world that archive.org and MusicBrainz answer from.
    library
        The library that the lookup services know.
    """

    access_key = ArchiveBehaviour().access_key
    secret_key = ArchiveBehaviour().secret_key
    lml_api_key = LmlBehaviour().api_key

    def __init__(self, spec: Spec | None = None, library: LibrarySpec | None = None) -> None:
        self.spec = spec or Spec()
        self.library = library or LibrarySpec()
        self._process: subprocess.Popen[str] | None = None
        self._urls: dict[ServiceName, str] = {}

    def __enter__(self) -> Self:
        order = {"spec": asdict(self.spec), "library": asdict(self.library)}
        # Its own session: a Ctrl-C in the terminal reaches the owner, who ends it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self.__exit__()
            raise RuntimeError("the stand-ins did not start; see their output above")
        self._urls = json.loads(answer)
        self.archive_url = self._urls["archive"]
        self.changes_url = self._urls["changes"]
        self.musicbrainz_url = self._urls["musicbrainz"]
        self.lml_url = self._urls["lml"]
        self.old_lml_url = self._urls["old_lml"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which the jobs find the services."""
        return {
            "ARCHIVE_ORG_URL": self.archive_url,
            "ARCHIVE_ORG_CHANGES_URL": self.changes_url,
            "ARCHIVE_ORG_ACCESS_KEY": self.access_key,
            "ARCHIVE_ORG_SECRET_KEY": self.secret_key,
            "ARCHIVE_ORG_RATE": "unlimited",
            "MUSICBRAINZ_URL": self.musicbrainz_url,
            "MUSICBRAINZ_RATE": "unlimited",
            "LIBRARY_METADATA_URL": self.lml_url,
            "LML_API_KEY": self.lml_api_key,
        }

    def stats(self, service: ServiceName) -> Stats:
        """Return what a service has seen since its start or the last reset of its statistics."""
        with _DIRECT.open(f"{self._urls[service]}/_stats", timeout=_TIMEOUT_S) as answer:
            return Stats(**json.load(answer))

    def control(self, service: ServiceName, **changes: Any) -> None:
        """Change how a service behaves.

        Parameters
        ----------
        changes
            Fields of the service's `Behaviour`, with faults as mappings of the fields of `Fault`;
            and ``reset_stats``.

        Raises
        ------
        ValueError
            A change is unknown; the message says which.
        """
        self._post(service, "_control", changes)

    def plant(self, service: ServiceName, answers: Mapping[str, Any]) -> None:
        """Replace answers of the world.

        Parameters
        ----------
        answers
            Of archive.org by gid: ``answers`` of the metadata API, one after another, where the
            last one repeats, and ``files`` by name; of MusicBrainz by ``TYPE/GID``: ``gid`` and
            ``xml`` of the answering entity, or None if there is none.

        Raises
        ------
        ValueError
            The service takes no answers, or one of them is malformed.
        """
        self._post(service, "_plant", answers)

    def _post(self, service: ServiceName, path: str, document: Mapping[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self._urls[service]}/{path}", json.dumps(document).encode()
        )
        try:
            _DIRECT.open(request, timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None

    def upload(self, gid: str, name: str, content: bytes, **metadata: str) -> None:
        """Put a file into an item, as the indexer would; `metadata` is that of the item."""
        headers = {f"x-archive-meta-{key}": value for key, value in metadata.items()}
        self._s3("PUT", gid, name, content, headers)

    def delete(self, gid: str, name: str) -> None:
        """Delete a file of an item, with its derivatives, as the indexer would."""
        self._s3("DELETE", gid, name, None, {})

    def _s3(
        self, method: str, gid: str, name: str, content: bytes | None, headers: dict[str, str]
    ) -> None:
        url = f"{self.archive_url}/s3/mbid-{gid}/{name}"
        request = urllib.request.Request(url, content, headers, method=method)
        _DIRECT.open(request, timeout=_TIMEOUT_S).close()


async def _serve(order: dict[str, Any]) -> None:
    world = World(Spec(**order["spec"]))
    library = Library(LibrarySpec(**order["library"]))
    archive = ArchiveOrg(world)
    stand_ins: dict[str, StandIn] = {
        "archive": archive,
        "musicbrainz": MusicBrainz(world),
        "lml": Lml(library, LmlBehaviour()),
        "old_lml": OldLml(library, LmlBehaviour()),
        "changes": Changes(world, archive.changed),
    }
    urls = {}
    for name, stand_in in stand_ins.items():
        server = await serve(stand_in)
        stand_in.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        urls[name] = f"http://{stand_in.host}"
    print(json.dumps(urls), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _main() -> None:
    """Serve as the first line of standard input says, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Answering makes hardly any reference cycles; looking for them takes a tenth of the time.
    gc.set_threshold(100_000, 50, 50)
    asyncio.run(_serve(json.loads(sys.stdin.readline())))


if __name__ == "__main__":
    _main()
