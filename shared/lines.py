"""Reads large line-by-line inputs, plain or gzipped, in blocks and with constant memory.

What a line means is its reader's business. Everything stays bytes: an input of millions of lines
must not be decoded for the sake of the few that are shown to anybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

_READ_BYTES: Final = 256 * 1024
#: What a read may become when it is unpacked; bounds what a gzip bomb can do.
_UNPACKED_BYTES: Final = 1024 * 1024
#: A longer line is handed on cut, to whoever finds it damaged.
LONGEST_LINE: Final = 64 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b"
#: zlib's number for "a gzip header and trailer are to be expected".
_GZIP_WINDOW: Final = 31
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Readable(Protocol):
    """Anything that bytes can be read from; no bytes mean the end."""

    def read(self, size: int, /) -> bytes: ...


class DamagedInput(Exception):
    """An input broke off. What came before has been handed on.

    `line` is the number of the line, counted from 1, that could no longer be read.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Block:
    """Successive lines without their ends; `first` is the number of the first, counted from 1."""

    first: int
    lines: list[bytes]


class _Broken(Exception):
    """The bytes of an input end before they should."""


def read_blocks(stream: Readable) -> Iterator[Block]:
    """Yield all lines of a stream. A byte order mark and the kind of line ends make no difference.

    Raises
    ------
    DamagedInput
        After everything that could be read: the stream failed, or its gzip data is damaged or cut.
        A line that has no end for that reason is not handed on.
    """
    number = 1
    rest = b""
    try:
        for data in _without_mark(_unpacked(stream)):
            text = rest + data
            end = text.rfind(b"\n") + 1
            rest = text[end:][:LONGEST_LINE]
            if end:
                lines = _split(text[:end])
                yield Block(number, lines)
                number += len(lines)
    except (_Broken, OSError) as error:
        raise DamagedInput(number, str(error) or type(error).__name__) from error
    if rest:
        yield Block(number, _split(rest + b"\n"))


def _split(text: bytes) -> list[bytes]:
    """Split text that ends with a line end."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    lines = text.split(b"\n")
    lines.pop()
    return lines


def _without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(_BYTE_ORDER_MARK):
            break
    yield head.removeprefix(_BYTE_ORDER_MARK)
    yield from pieces


def _unpacked(stream: Readable) -> Iterator[bytes]:
    head = stream.read(_READ_BYTES)
    while 0 < len(head) < len(_GZIP_MAGIC) and (more := stream.read(_READ_BYTES)):
        head += more
    if head.startswith(_GZIP_MAGIC):
        yield from _inflated(stream, head)
        return
    while head:
        yield head
        head = stream.read(_READ_BYTES)


def _inflated(stream: Readable, data: bytes) -> Iterator[bytes]:
    """Unpack gzip data: one member after another, as `cat a.gz b.gz` leaves them."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    try:
        while data:
            yield member.decompress(data, _UNPACKED_BYTES)
            data = member.unconsumed_tail
            if member.eof:
                # Tapes and block devices pad with zeros.
                data = member.unused_data.lstrip(b"\0")
                while not data and (more := stream.read(_READ_BYTES)):
                    data = more.lstrip(b"\0")
                if data:
                    member = zlib.decompressobj(_GZIP_WINDOW)
            data = data or stream.read(_READ_BYTES)
        yield member.flush()
    except zlib.error as error:
        raise _Broken(f"the gzip data is damaged ({error})") from error
    if not member.eof:
        raise _Broken("the gzip data is cut off")
