"""Counting of distinct values, in bounded memory and over several runs of a scan."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable
from typing import Final

#: Up to this many values are counted exactly, as 64-bit numbers.
_MOST_EXACT: Final = 4096
_NUMBER: Final = struct.Struct("!Q")

#: For more values, one of this many bits is set for each, in 256 KiB. The count corrects for bits
#: that several values share: for eight million values, it is wrong by about 0.1 %.
_BITS: Final = 1 << 21

#: A count that is lower by a smaller share does not indicate repeated values.
_ERROR: Final = 0.005


def number_of(value: bytes) -> int:
    """Return a number that identifies a value, the same in every process."""
    return _NUMBER.unpack(hashlib.blake2b(value, digest_size=_NUMBER.size).digest())[0]  # type: ignore[no-any-return]


class Distinct:
    """Count distinct numbers of `number_of`.

    Parameters
    ----------
    stored
        The stored state of an earlier count, to continue it.
    """

    def __init__(self, stored: bytes = b"") -> None:
        self._exact: set[int] | None = None
        self._bits = bytearray()
        if len(stored) * 8 == _BITS:
            self._bits = bytearray(stored)
        else:
            self._exact = {number for (number,) in _NUMBER.iter_unpack(stored)}

    def update(self, numbers: Iterable[int]) -> None:
        """Add numbers; known ones change nothing."""
        if self._exact is not None:
            self._exact.update(numbers)
            if len(self._exact) <= _MOST_EXACT:
                return
            numbers, self._exact, self._bits = self._exact, None, bytearray(_BITS // 8)
        bits = self._bits
        for number in numbers:
            position = number % _BITS
            bits[position >> 3] |= 1 << (position & 7)

    def count(self, most: int) -> int:
        """Return the number of distinct numbers, at most `most`."""
        if self._exact is not None:
            return min(most, len(self._exact))
        free = max(1, _BITS - int.from_bytes(self._bits).bit_count())
        estimate = round(_BITS * math.log(_BITS / free))
        return most if estimate >= (1 - _ERROR) * most else estimate

    def stored(self) -> bytes:
        """Return the state as bytes, at most 256 KiB."""
        if self._exact is None:
            return bytes(self._bits)
        return b"".join(map(_NUMBER.pack, sorted(self._exact)))
