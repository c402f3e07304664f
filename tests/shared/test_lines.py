"""Lines come out whole and in bounded pieces, whatever the input is wrapped in."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from artwork_backfill.shared.lines import LONGEST_LINE, DamagedInput, read_blocks


class Trickle(io.BytesIO):
    """A stream that gives one byte at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1)


class Failing(io.BytesIO):
    """A stream that fails where it should end."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise OSError("the disk is on fire")
        return data


def numbered(stream: io.BytesIO) -> list[tuple[int, bytes]]:
    return [
        (number, line)
        for block in read_blocks(stream)
        for number, line in enumerate(block.lines, block.first)
    ]


def until_damage(stream: io.BytesIO) -> tuple[list[bytes], DamagedInput]:
    lines = []
    try:
        for block in read_blocks(stream):
            lines += block.lines
    except DamagedInput as error:
        return lines, error
    pytest.fail("no damage was found")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"one", [b"one"]),
        (b"one\n", [b"one"]),
        (b"one\ntwo", [b"one", b"two"]),
        (b"one\n\ntwo\n", [b"one", b"", b"two"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"one\r\ntwo\n", [b"one", b"two"]),
        (b"\xef\xbb\xbfone\ntwo\n", [b"one", b"two"]),
        (b"\xef\xbb\xbf", []),
        (b"caf\xe9\n", [b"caf\xe9"]),
    ],
)
@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_lines_are_numbered_and_freed_of_their_wrapping(
    data: bytes,
    lines: list[bytes],
    wrap: Callable[[bytes], bytes],
    stream: type[io.BytesIO],
) -> None:
    assert numbered(stream(wrap(data))) == list(enumerate(lines, 1))


def test_line_ends_are_found_where_two_reads_meet() -> None:
    data = b"".join(b"%07d\r\n" % number for number in range(200_000))
    assert [int(line) for _, line in numbered(io.BytesIO(data))] == list(range(200_000))


def test_gzip_members_follow_each_other_with_padding_between() -> None:
    data = gzip.compress(b"one\ntw") + b"\0" * 600 + gzip.compress(b"o\nthree\n") + b"\0" * 512
    assert [line for _, line in numbered(io.BytesIO(data))] == [b"one", b"two", b"three"]


def test_what_a_cut_gzip_still_holds_is_handed_on_without_the_cut_line() -> None:
    lines = [b"line %06d %d" % (number, zlib.crc32(b"%d" % number)) for number in range(50_000)]
    packed = gzip.compress(b"\n".join(lines))
    read, error = until_damage(io.BytesIO(packed[: len(packed) // 2]))
    assert len(read) > 20_000
    assert read == lines[: len(read)]
    assert error.line == len(read) + 1
    assert "cut off" in str(error)


def test_a_gzip_without_its_trailer_is_damaged() -> None:
    lines, error = until_damage(io.BytesIO(gzip.compress(b"one\ntwo\n")[:-4]))
    assert lines == [b"one", b"two"]
    assert "cut off" in str(error)


@pytest.mark.parametrize(
    "tail", [b"garbage", b"\x1f\x8bgarbage that looks like another member"], ids=["no", "magic"]
)
def test_garbage_after_gzip_is_damage(tail: bytes) -> None:
    lines, error = until_damage(io.BytesIO(gzip.compress(b"one\ntwo\n") + tail))
    assert lines == [b"one", b"two"]
    assert "damaged" in str(error) or "cut off" in str(error)


def test_a_wrong_checksum_is_damage() -> None:
    packed = bytearray(gzip.compress(b"one\ntwo\n"))
    packed[-8] ^= 1
    _, error = until_damage(io.BytesIO(bytes(packed)))
    assert "damaged" in str(error)


def test_a_stream_that_fails_keeps_what_came_before() -> None:
    lines, error = until_damage(Failing(b"one\ntwo\nthr"))
    assert lines == [b"one", b"two"]
    assert (error.line, str(error)) == (3, "the disk is on fire")


def test_an_endless_line_is_cut_and_takes_no_memory() -> None:
    bomb = gzip.compress(b"x" * 50_000_000 + b"\nnext\n")
    tracemalloc.start()
    try:
        lines = [line for _, line in numbered(io.BytesIO(bomb))]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines[1] == b"next"
    assert lines[0][:LONGEST_LINE] == b"x" * LONGEST_LINE
    assert peak < 8_000_000
