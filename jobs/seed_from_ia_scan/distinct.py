"""How many distinct values were seen, in bounded memory and over several runs of a scan."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable
from typing import Final

#: Up to this many values are counted exactly, as 64-bit numbers.
_MOST_EXACT: Final = 4096
_NUMBER: Final = struct.Struct("!Q")

#: Of more values, one of this many bits each is set, in 256 KiB. Bits that several values share
#: are allowed for: of eight million values, the count is wrong by about 0.1 %.
_BITS: Final = 1 << 21

#: A count that is lower by a smaller share is no sign of repeated values.
_ERROR: Final = 0.005


def number_of(value: bytes) -> int:
    """Return a number that identifies a value, the same in every process."""
    return _NUMBER.unpack(hashlib.blake2b(value, digest_size=_NUMBER.size).digest())[0]  # type: ignore[no-any-return]


class Distinct:
    """Counts distinct numbers of `number_of`.

    Parameters
    ----------
    stored
        What `stored` of an earlier one returned, to continue.
    """

    def __init__(self, stored: bytes = b"") -> None:
        self._exact: set[int] | None = None
        self._bits = bytearray()
        if len(stored) * 8 == _BITS:
            self._bits = bytearray(stored)
        else:
            self._exact = {number for (number,) in _NUMBER.iter_unpack(stored)}

    def update(self, numbers: Iterable[int]) -> None:
        """Count numbers; those that are known already change nothing."""
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
        """Return how many distinct numbers there are, `most` at most."""
        if self._exact is not None:
            return min(most, len(self._exact))
        free = max(1, _BITS - int.from_bytes(self._bits).bit_count())
        estimate = round(_BITS * math.log(_BITS / free))
        return most if estimate >= (1 - _ERROR) * most else estimate

    def stored(self) -> bytes:
        """Return everything as bytes, at most 256 KiB of them."""
        if self._exact is None:
            return bytes(self._bits)
        return b"".join(map(_NUMBER.pack, sorted(self._exact)))
