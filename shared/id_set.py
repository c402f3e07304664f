"""A set of row ids that is small enough to remember every row that a run has processed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_CHUNK: Final = 1 << 16


class IdSet:
    """A set of row ids that takes about a bit per id for dense ids, such as serial ones."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def __len__(self) -> int:
        # Counted on demand, because counting in `update` would take a third of its time.
        return sum(int.from_bytes(bits).bit_count() for bits in self._chunks.values())

    def __contains__(self, id_: int) -> bool:
        bits = self._chunks.get(id_ // _CHUNK)
        offset = id_ % _CHUNK
        return bits is not None and bool(bits[offset >> 3] & 1 << (offset & 7))

    def update(self, ids: Iterable[int]) -> None:
        """Add ids; those in the set already change nothing."""
        for id_ in ids:
            chunk, offset = divmod(id_, _CHUNK)
            bits = self._chunks.get(chunk)
            if bits is None:
                bits = self._chunks[chunk] = bytearray(_CHUNK // 8)
            bits[offset >> 3] |= 1 << (offset & 7)

    def chunks(self) -> Iterator[list[int]]:
        """Yield the ids in ascending lists of a bounded length."""
        for chunk in sorted(self._chunks):
            bits, first = self._chunks[chunk], chunk * _CHUNK
            yield [
                first + (byte << 3) + bit
                for byte, value in enumerate(bits)
                if value
                for bit in range(8)
                if value >> bit & 1
            ]
