"""Reading of large line-by-line inputs, plain or compressed, in blocks and with constant memory.

The reader knows what a line means. Everything stays bytes: millions of lines must not be decoded
for the few that are shown to a person.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, NamedTuple, Protocol, cast

_READ_BYTES: Final = 256 * 1024
#: The maximum size of one decompressed read.
_UNPACKED_BYTES: Final = 1024 * 1024
#: Longer lines are passed on truncated, and the reader finds them damaged.
LONGEST_LINE: Final = 64 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b"
_XZ_MAGIC: Final = b"\xfd7zXZ\0"
_TAR_MAGIC: Final = (257, b"ustar")
_HEAD_BYTES: Final = 1024

#: Data that decompresses to more than this size and to more than this multiple is a bomb: lines
#: about entities contain UUIDs, which do not compress well.
_HARMLESS_BYTES: Final = 64 * 1024 * 1024
_MOST_FOLD: Final = 500
#: The memory for decompressing xz; `xz -9` needs 65 MiB.
_XZ_MEMORY: Final = 80 * 1024 * 1024
#: The maximum size of the data between two files of an archive: their names and attributes.
_TAR_HEADER_BYTES: Final = 1024 * 1024

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Readable(Protocol):
    """Anything that bytes can be read from; no bytes mean the end."""

    def read(self, size: int, /) -> bytes: ...


class DamagedInput(Exception):
    """An input ended early. Everything before that was passed on.

    `line` is the number, counted from 1, of the line that could no longer be read.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Block:
    """Successive lines without line ends; `first` is the number of the first, counted from 1.

    `is_open` says that this is only the last line of an input, and that it had no end.
    """

    first: int
    lines: list[bytes]
    is_open: bool = False


class Part(NamedTuple):
    """One file of an input: its name if the input is an archive, else the empty string."""

    name: str
    stream: Readable


class _Broken(OSError):
    """The bytes of an input are invalid. The message says how."""


def read_parts(stream: Readable) -> Iterator[Part]:
    """Yield the files of a stream: those of a tar archive, or else the stream itself.

    The stream may be compressed with gzip or xz. Each part must be read before the next is
    requested. Opening and reading raise `OSError` on failure.
    """
    content = _Ahead(_unpacked(stream))
    start, magic = _TAR_MAGIC
    if content.head[start : start + len(magic)] == magic:
        yield from _files(content)
    else:
        yield Part("", content)


def read_blocks(stream: Readable) -> Iterator[Block]:
    """Yield all lines of a stream, which may be compressed with gzip or xz.

    A byte order mark and the kind of line ends make no difference.

    Raises
    ------
    DamagedInput
        After all readable lines: the stream failed, its compressed data is damaged or truncated, or
        it is not text in UTF-8 or a similar encoding. A line without an end is then not passed on.
    """
    number = 1
    rest = b""
    try:
        content = _Ahead(_unpacked(stream))
        _check_text(content.head)
        for data in _pieces(content):
            text = rest + data
            # The other half of a line end may still follow.
            half = text.endswith(b"\r")
            end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - half)) + 1
            rest = text[end:]
            if len(rest) > LONGEST_LINE:
                rest = rest[:LONGEST_LINE] + b"\r" * half
            if end:
                lines = _split(text[:end])
                yield Block(number, lines)
                number += len(lines)
    except OSError as error:
        raise DamagedInput(number, str(error) or type(error).__name__) from error
    if rest:
        yield Block(number, _split(rest.removesuffix(b"\r") + b"\n"), not rest.endswith(b"\r"))


def _split(text: bytes) -> list[bytes]:
    """Split text that ends with a line end."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = text.split(b"\n")
    lines.pop()
    return lines


def _pieces(content: Readable) -> Iterator[bytes]:
    data = content.read(_UNPACKED_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while data:
        yield data
        data = content.read(_UNPACKED_BYTES)


def _check_text(head: bytes) -> None:
    # In UTF-16 and UTF-32 at least every other byte is zero.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) * 3 > len(head):
        raise _Broken("it is no text in UTF-8; convert it first, for example with iconv")


class _Ahead:
    """A stream whose first bytes were already read; `count` bytes were passed on."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.count = 0
        self.head = b""
        #: The error that followed the first bytes; raised after them.
        self._error: OSError | None = None
        try:
            while len(self.head) < _HEAD_BYTES and (more := stream.read(_READ_BYTES)):
                self.head += more
        except OSError as error:
            self._error = error
        self._left = self.head

    def read(self, size: int, /) -> bytes:
        data, self._left = self._left[:size], self._left[size:]
        if not data:
            if self._error is not None:
                raise self._error
            data = self._stream.read(size)
        self.count += len(data)
        return data


# -- decompression ---------------------------------------------------------------------------------


def _unpacked(stream: Readable) -> Readable:
    packed = _Ahead(stream)
    if packed.head.startswith(_GZIP_MAGIC):
        return _Proportionate(packed, _Gzip(packed))
    if packed.head.startswith(_XZ_MAGIC):
        return _Proportionate(packed, _Xz(packed))
    return packed


class _Proportionate:
    """Decompressed data, unless it is out of proportion."""

    def __init__(self, packed: _Ahead, unpacking: Readable) -> None:
        self._packed = packed
        self._unpacking = unpacking
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._unpacking.read(min(size, _UNPACKED_BYTES))
        self._count += len(data)
        if self._count > _HARMLESS_BYTES and self._count > _MOST_FOLD * self._packed.count:
            raise _Broken(f"it unpacks to more than {_MOST_FOLD} times its size")
        return data


class _Gzip:
    """Decompress one gzip member after another, as `cat a.gz b.gz` joins them."""

    def __init__(self, packed: Readable) -> None:
        self._file = gzip.GzipFile(fileobj=cast("IO[bytes]", packed), mode="rb")

    def read(self, size: int, /) -> bytes:
        try:
            # Unlike read(), this does not lose the data before an error.
            return self._file.read1(size)
        except EOFError:
            raise _Broken("the gzip data is cut off") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _Broken(f"the gzip data is damaged ({error})") from error


class _Xz:
    """Decompress one xz stream after another, with a memory limit, which LZMAFile lacks."""

    def __init__(self, packed: Readable) -> None:
        self._packed = packed
        self._stream = _xz_stream()

    def read(self, size: int, /) -> bytes:
        data = b""
        try:
            while not data:
                if self._stream.eof:
                    # Zeros may follow a stream.
                    more = self._stream.unused_data.lstrip(b"\0")
                    while not more and (read := self._packed.read(_READ_BYTES)):
                        more = read.lstrip(b"\0")
                    if not more:
                        return b""
                    self._stream = _xz_stream()
                else:
                    needs_input = self._stream.needs_input
                    more = self._packed.read(_READ_BYTES) if needs_input else b""
                    if needs_input and not more:
                        raise _Broken("the xz data is cut off")
                data = self._stream.decompress(more, size)
        except lzma.LZMAError as error:
            raise _Broken(f"the xz data is damaged ({error})") from error
        return data


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


# -- archives --------------------------------------------------------------------------------------


class _Archive:
    """The bytes of an archive, with a limit on the data between its files."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.header_bytes = 0
        self._tail = b""

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.header_bytes += len(data)
        if self.header_bytes > _TAR_HEADER_BYTES:
            raise _Broken("a header of the archive is too long")
        self._tail = (self._tail + data)[-tarfile.BLOCKSIZE :]
        return data

    def check_complete(self) -> None:
        """Read to the end, where compressed data is checked; a complete archive ends with zeros."""
        while data := self._stream.read(_READ_BYTES):
            self._tail = (self._tail + data)[-tarfile.BLOCKSIZE :]
        if self._tail.strip(b"\0"):
            raise _Broken("the archive is cut off")


class _Member:
    """One file of an archive."""

    def __init__(self, archive: _Archive, content: IO[bytes]) -> None:
        self._archive = archive
        self._content = content

    def read(self, size: int, /) -> bytes:
        self._archive.header_bytes = 0
        try:
            return self._content.read(min(size, _READ_BYTES))
        except tarfile.TarError as error:
            raise _Broken(f"the archive is damaged ({error})") from error


class _Sparse:
    """A file whose holes take no space in the archive, and so have no limit."""

    def read(self, size: int, /) -> bytes:
        raise _Broken("it is a sparse file: unpack the archive first")


def _files(stream: Readable) -> Iterator[Part]:
    archive = _Archive(stream)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", archive), mode="r|") as tar:
            while (member := tar.next()) is not None:
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if member.issparse():
                    yield Part(member.name, _Sparse())
                    # Its content is skipped on the way to the next header.
                    archive.header_bytes = member.offset_data - tar.offset
                else:
                    part = _Member(archive, content)
                    yield Part(member.name, part)
                    while part.read(_READ_BYTES):
                        pass
                    archive.header_bytes = 0
                # Otherwise the archive would remember all members.
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _Broken(f"the archive is damaged ({error})") from error
    archive.check_complete()
