"""Every gid that was read, with its sources and its priority, in about twenty bytes each.

A dictionary of 1.4 million gids would take hundreds of megabytes; this is what lets the end of a
run count them again without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final

_GID_BYTES: Final = 16
_PRIORITY_BYTES: Final = 2
_BUCKETS: Final = 256
#: A bucket is freed of repetitions when it has grown by half, and not for fewer bytes than this;
#: and when it is in so many pieces.
_SMALLEST: Final = 128 * 1024
_MOST_PIECES: Final = 512

#: What is known of a gid: its highest priority, and the positions of its sources as a bit mask.
Entry = tuple[int, int]


class Ledger:
    """A map from packed gids to entries, as unsorted records in buckets by the gid's first byte.

    A bucket is a list of pieces that never change: growing ones would leave gaps between them.

    Parameters
    ----------
    sources
        How many sources there are.
    """

    def __init__(self, sources: int) -> None:
        self._mask_bytes = (sources + 7) // 8
        self._record_bytes = _GID_BYTES + _PRIORITY_BYTES + self._mask_bytes
        self._buckets: list[list[bytes]] = [[] for _ in range(_BUCKETS)]
        self._tidy_at = [_SMALLEST] * _BUCKETS

    def add(self, seeds: Mapping[bytes, int], source: int) -> None:
        """Note gids that were read from a source, each with its priority there."""
        tails = {priority: self._tail((priority, 1 << source)) for priority in set(seeds.values())}
        for position, gids in groupby(sorted(seeds), key=itemgetter(0)):
            self._buckets[position].append(b"".join([gid + tails[seeds[gid]] for gid in gids]))
            if self._has_grown(position):
                self._tidy(position)

    def buckets(self) -> Iterator[dict[bytes, Entry]]:
        """Yield every gid once, some thousands at a time."""
        for bucket in self._buckets:
            yield self._entries(bucket)

    def _has_grown(self, position: int) -> bool:
        bucket = self._buckets[position]
        return len(bucket) > _MOST_PIECES or sum(map(len, bucket)) >= self._tidy_at[position]

    def _tidy(self, position: int) -> None:
        entries = self._entries(self._buckets[position])
        tails = {entry: self._tail(entry) for entry in set(entries.values())}
        tidied = b"".join([gid + tails[entry] for gid, entry in entries.items()])
        self._buckets[position] = [tidied]
        self._tidy_at[position] = max(_SMALLEST, len(tidied) * 3 // 2)

    def _entries(self, bucket: list[bytes]) -> dict[bytes, Entry]:
        entries: dict[bytes, Entry] = {}
        decoded: dict[bytes, Entry] = {}
        records = b"".join(bucket)
        for start in range(0, len(records), self._record_bytes):
            gid = records[start : start + _GID_BYTES]
            tail = records[start + _GID_BYTES : start + self._record_bytes]
            entry = decoded.get(tail)
            if entry is None:
                entry = decoded[tail] = self._entry(tail)
            known = entries.setdefault(gid, entry)
            if known is not entry:
                entries[gid] = max(known[0], entry[0]), known[1] | entry[1]
        return entries

    def _tail(self, entry: Entry) -> bytes:
        priority, mask = entry
        return priority.to_bytes(_PRIORITY_BYTES) + mask.to_bytes(self._mask_bytes)

    def _entry(self, tail: bytes) -> Entry:
        priority = int.from_bytes(tail[:_PRIORITY_BYTES])
        return priority, int.from_bytes(tail[_PRIORITY_BYTES:])
