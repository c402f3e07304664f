"""Lines come out whole and in bounded pieces, whatever the input is wrapped in."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artwork_backfill.shared.lines import LONGEST_LINE, DamagedInput, read_blocks, read_parts


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
        (b"one\rtwo\r", [b"one", b"two"]),
        (b"one\r\rtwo\n\r\n", [b"one", b"", b"two", b""]),
        (b"one\rtwo", [b"one", b"two"]),
        (b"\xef\xbb\xbfone\ntwo\n", [b"one", b"two"]),
        (b"\xef\xbb\xbf", []),
        (b"caf\xe9\n", [b"caf\xe9"]),
    ],
)
@pytest.mark.parametrize("wrap", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
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


class Pieces(io.BytesIO):
    """A stream that gives pieces of lengths of its own choice."""

    def __init__(self, data: bytes, chosen: random.Random) -> None:
        super().__init__(data)
        self._chosen = chosen

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._chosen.randrange(1, 5))


@given(
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"\xff", b"bc"])).map(b"".join),
    st.randoms(use_true_random=False),
    st.sampled_from([bytes, gzip.compress, lzma.compress]),
)
def test_lines_are_the_same_however_they_are_packed_and_cut_into_reads(
    data: bytes, chosen: random.Random, wrap: Callable[[bytes], bytes]
) -> None:
    expected = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = numbered(Pieces(wrap(data), chosen))
    assert found == list(enumerate(expected, 1))


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


def test_xz_streams_follow_each_other_with_padding_between() -> None:
    data = lzma.compress(b"one\ntw") + b"\0" * 8 + lzma.compress(b"o\nthree\n") + b"\0" * 4
    assert [line for _, line in numbered(io.BytesIO(data))] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
@given(share=st.floats(0.1, 0.999))
def test_whatever_is_cut_is_damaged(compress: Callable[[bytes], bytes], share: float) -> None:
    packed = compress(b"".join(b"%d\n" % number for number in range(500)))
    lines, error = until_damage(io.BytesIO(packed[: max(30, int(len(packed) * share))]))
    assert "cut off" in str(error)
    assert lines == [b"%d" % number for number in range(len(lines))]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_another_encoding_is_said_to_be(encoding: str) -> None:
    lines, error = until_damage(io.BytesIO("one\ntwo\n".encode(encoding)))
    assert (lines, error.line) == ([], 1)
    assert "no text in UTF-8" in str(error)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_bomb_is_not_unpacked_to_its_end(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"x\n" * 60_000_000)
    lines, error = until_damage(io.BytesIO(bomb))
    assert "more than 500 times its size" in str(error)
    assert len(lines) < 40_000_000


def test_xz_that_wants_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 * 1024 * 1024}]
    _, error = until_damage(io.BytesIO(lzma.compress(b"one\n", filters=filters)))
    assert "Memory usage limit" in str(error)


# -- archives --------------------------------------------------------------------------------------


def archived(compression: str = "", **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"caa/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("caa/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def parts_of(stream: io.BytesIO) -> dict[str, list[bytes]]:
    return {
        part.name: [line for block in read_blocks(part.stream) for line in block.lines]
        for part in read_parts(stream)
    }


FILES = {"reindex": b"one\ntwo\n", "empty": b"", "results_cache.gz": gzip.compress(b"three\n")}


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_the_files_of_an_archive_are_parts(compression: str, stream: type[io.BytesIO]) -> None:
    assert parts_of(stream(archived(compression, **FILES))) == {
        "caa/reindex": [b"one", b"two"],
        "caa/empty": [],
        "caa/results_cache.gz": [b"three"],
    }


def test_anything_else_is_one_part() -> None:
    assert parts_of(io.BytesIO(lzma.compress(b"one\n"))) == {"": [b"one"]}
    assert parts_of(io.BytesIO(b"")) == {"": []}


def test_a_part_that_is_not_read_is_passed_over() -> None:
    names = [part.name for part in read_parts(io.BytesIO(archived("xz", **FILES)))]
    assert names == [f"caa/{name}" for name in FILES]


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.9])
def test_a_cut_archive_is_damaged(compression: str, share: float) -> None:
    noise = random.Random(5).randbytes(5000).hex().encode()
    data = archived(compression, first=noise, second=noise, third=noise)
    whole = len(data) if compression else 512 * 3 + 3 * (len(noise) + 512)
    with pytest.raises((OSError, DamagedInput), match=r"cut off|damaged|unexpected end"):
        parts_of(io.BytesIO(data[: int(whole * share)]))


def test_an_archive_cut_between_two_files_is_damaged() -> None:
    data = archived(first=b"one\n", second=b"two\n")
    with pytest.raises(OSError, match="the archive is cut off"):
        parts_of(io.BytesIO(data[: 2 * 512]))


def test_a_header_of_an_archive_takes_no_memory() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("reindex")
        info.pax_headers = {"comment": "x" * 40_000_000}
        tar.addfile(info)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="a header of the archive is too long"):
            parts_of(io.BytesIO(buffer.getvalue()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000


@pytest.mark.parametrize("content_bytes", [512, 3_000_000])
def test_a_sparse_file_of_an_archive_is_refused_and_the_others_are_read(content_bytes: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT) as tar:
        for name, sparse in (("first", False), ("sparse", True), ("last", False)):
            info = tarfile.TarInfo(name)
            content = b"x" * content_bytes if sparse else b"one\n"
            info.size = len(content)
            if sparse:
                # A terabyte, in an archive of some hundred bytes.
                info.pax_headers = {
                    "GNU.sparse.map": f"0,{content_bytes}",
                    "GNU.sparse.size": str(1 << 40),
                }
            tar.addfile(info, io.BytesIO(content))
    lines: dict[str, list[bytes] | str] = {}
    for part in read_parts(io.BytesIO(buffer.getvalue())):
        try:
            lines[part.name] = [line for block in read_blocks(part.stream) for line in block.lines]
        except DamagedInput as error:
            lines[part.name] = str(error)
    assert lines == {
        "first": [b"one"],
        "sparse": "it is a sparse file: unpack the archive first",
        "last": [b"one"],
    }


def test_a_sparse_file_that_is_not_read_is_not_unpacked_either() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}
        tar.addfile(info)
    assert [part.name for part in read_parts(io.BytesIO(buffer.getvalue()))] == ["sparse"]
