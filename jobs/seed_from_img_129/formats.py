"""The kinds of files of the audit of 2021, and the meaning of their lines.

Every line is a gid and a tail. There are hundreds of millions of lines, but few distinct tails, so
each tail is judged once and remembered. The lines of an item are adjacent, so a gid is parsed only
where it changes.
"""

from __future__ import annotations

import binascii
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from typing import Final, NamedTuple

from artwork_backfill.jobs.seed_from_img_129.checks import (
    DAMAGED,
    OTHER,
    PASSED,
    URGENT,
    URGENT_CHECKS,
    Note,
    Verdict,
    gravest,
    judge,
)
from artwork_backfill.shared.lines import Block

#: The number and length of tails whose verdict is remembered per source: a file of odd lines must
#: not fill the memory.
_REMEMBERED_TAILS: Final = 5_000
_LONGEST_TAIL: Final = 4_000

#: The auditor had a hundred checks.
_MOST_COLUMNS: Final = 1_000

_GID_CHARS: Final = 36
#: A gid in any form is not longer; the pattern below is slow on longer text.
_LONGEST_GID: Final = 500

# A gid on its own, as an archive.org identifier, or in the URL of a release or of its item.
_ODD_GID: Final = re.compile(
    rb"(?:mbid-|https?://[^\s/]+/(?:\S*/)?(?:release/|mbid-))?"
    rb"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:[/?#]\S*)?",
    re.IGNORECASE,
)
_OUTCOMES: Final = frozenset({b"PASSED", b"FAILED", b"ITEM SKIPPED"})


class Kind(StrEnum):
    """The kinds of files, as named in messages."""

    TABLE = "table of failed checks"
    RESULTS = "results cache"
    ACTIONS = "action list"
    LOG = "log of failed or skipped items"
    LIST = "plain list"


class Remark(NamedTuple):
    """A report about a line: its number, the kind of remark, and the text in question."""

    line: int
    note: Note
    text: bytes


def pack_gid(text: bytes) -> bytes | None:
    """Return the 16 bytes of a gid in its usual form, or `None` if it is not one."""
    if text[8:24:5] != b"----":
        return None
    try:
        packed = binascii.unhexlify(text.replace(b"-", b""))
    except ValueError:
        return None
    # A shorter text has fewer digits, and so has one with more dashes.
    return packed if len(packed) == 16 else None


class Reader:
    """Read the lines of one source.

    Parameters
    ----------
    judge_tail
        Returns the meaning of a line with this tail, stripped at its end.

    Attributes
    ----------
    seeds
        The highest priority by packed gid, since the caller last emptied it.
    usable
        The number of lines of the latest block that belong to an entity.
    """

    def __init__(self, judge_tail: Callable[[bytes], Verdict]) -> None:
        self.seeds: dict[bytes, int] = {}
        self.usable = 0
        self._verdicts = _Verdicts(judge_tail)
        self._last: tuple[bytes, bytes | None] = (b"", None)

    def heading(self, number: int, line: bytes) -> list[Remark] | None:
        """Parse a line that names columns, if this is one; return remarks about it."""
        return None

    def read(self, block: Block) -> list[Remark]:
        """Process the lines of a block, and return remarks about them."""
        remarks: list[Remark] = []
        seeds, verdicts = self.seeds, self._verdicts
        text, gid = self._last
        useless = 0
        for number, line in enumerate(block.lines, block.first):
            tail = line[_GID_CHARS:]
            if line[:_GID_CHARS] != text:
                text = line[:_GID_CHARS]
                gid = pack_gid(text)
                if gid is None:
                    gid, tail = _split_line(line)
                    # The next line may begin alike and yet belong to another entity.
                    text = b""
            if gid is None:
                remarks += self._without_gid(number, line)
                useless += 1
                continue
            priority, note = verdicts[tail]
            if priority > seeds.get(gid, 0):
                seeds[gid] = priority
            if note is not None:
                remarks.append(Remark(number, note, line))
                useless += note is Note.DAMAGED
        self._last = text, gid
        self.usable = len(block.lines) - useless
        return remarks

    def _without_gid(self, number: int, line: bytes) -> list[Remark]:
        if not line.strip():
            return []
        remarks = self.heading(number, line)
        return [Remark(number, Note.DAMAGED, line)] if remarks is None else remarks


class _Verdicts(dict[bytes, Verdict]):
    """The verdicts on tails that were met before."""

    def __init__(self, judge_tail: Callable[[bytes], Verdict]) -> None:
        super().__init__()
        self._judge_tail = judge_tail

    def __missing__(self, tail: bytes) -> Verdict:
        if len(self) >= _REMEMBERED_TAILS:
            self.clear()
        verdict = self._judge_tail(tail.rstrip())
        if len(tail) <= _LONGEST_TAIL:
            self[tail] = verdict
        return verdict


def _split_line(line: bytes) -> tuple[bytes | None, bytes]:
    """Return the gid and the tail of a line whose gid may have any of its forms."""
    column = re.split(rb"[\t,]", line[:_LONGEST_GID], maxsplit=1)[0]
    odd = _ODD_GID.fullmatch(column.strip(b' "'))
    return pack_gid(odd[1]) if odd else None, line[len(column) :]


# -- the kinds -------------------------------------------------------------------------------------


def _judge_in_list(tail: bytes) -> Verdict:
    """One gid per line, with no further information."""
    return DAMAGED if tail else _OTHER


class LogReader(Reader):
    """`gid TAB check` for every check that failed or made the auditor skip the item."""

    def __init__(self) -> None:
        super().__init__(_judge_in_log)

    def read(self, block: Block) -> list[Remark]:
        remarks = super().read(block)
        if block.is_open and Note.DAMAGED not in [remark.note for remark in remarks]:
            # The beginning of a check that other lines name: the file is cut off.
            (line,) = block.lines
            tail = line[_GID_CHARS:]
            if any(known.startswith(tail) and known != tail for known in self._verdicts):
                remarks.append(Remark(block.first, Note.DAMAGED, line))
        return remarks


def _judge_in_log(tail: bytes) -> Verdict:
    empty, *columns = tail.split(b"\t")
    return judge(columns[0]) if not empty and len(columns) == 1 else DAMAGED


def _judge_action(tail: bytes) -> Verdict:
    """`gid TAB MusicBrainz URL TAB archive.org URL TAB check; check; ...`."""
    empty, *columns = tail.split(b"\t")
    if empty or not 2 <= len(columns) <= 3 or b"://" not in columns[0]:
        return DAMAGED
    return _judge_all(columns[2]) if len(columns) == 3 else _OTHER


@lru_cache(maxsize=128)
def _judge_all(checks: bytes) -> Verdict:
    return gravest([judge(check.strip()) for check in checks.split(b";")])


def _judge_result(tail: bytes, passed: Verdict) -> Verdict:
    """`gid TAB check TAB outcome` for every check of every item, passed or not."""
    empty, *columns = tail.split(b"\t")
    if empty or len(columns) != 2 or columns[1] not in _OUTCOMES:
        return DAMAGED
    verdict = judge(columns[0])
    if columns[1] != b"PASSED":
        return verdict
    # An item that passed the check for test items is not a test item.
    note = verdict.note if verdict.note is Note.UNKNOWN_CHECK else None
    return passed._replace(note=note)


_URGENT: Final = Verdict(URGENT)
_OTHER: Final = Verdict(OTHER)


class TableReader(Reader):
    """`gid,count,count,...`: how often each check failed; the first line names the checks."""

    def __init__(self) -> None:
        super().__init__(self._judge_row)
        # Before a heading names the columns, no line can be valid.
        self._is_line = self._is_tame_line = re.compile(rb"(?!)").fullmatch

    def heading(self, number: int, line: bytes) -> list[Remark] | None:
        if not is_heading(line):
            return None
        try:
            (header,) = csv.reader([line.decode("utf-8", "surrogateescape")])
        except csv.Error:
            return None
        if len(header) > _MOST_COLUMNS:
            return None
        names = [name.strip().encode("utf-8", "surrogateescape") for name in header[1:]]
        self._name_columns(names)
        self._verdicts.clear()
        unknown = [name for name in names if judge(name).note is Note.UNKNOWN_CHECK]
        return [Remark(number, Note.UNKNOWN_CHECK, name) for name in unknown]

    def _name_columns(self, names: Sequence[bytes]) -> None:
        any_count, zero = rb",[0-9]+", rb",0+"
        tame = [zero if name in URGENT_CHECKS else any_count for name in names]
        self._is_line = re.compile(any_count * len(names)).fullmatch
        self._is_tame_line = re.compile(b"".join(tame)).fullmatch

    def _judge_row(self, tail: bytes) -> Verdict:
        # Spreadsheets quote values, and some programs write a space after each comma.
        tail = tail.translate(None, b' "')
        if self._is_tame_line(tail):
            return _OTHER if tail.strip(b"0,") else Verdict(0, Note.NO_FAILURE)
        return _URGENT if self._is_line(tail) else DAMAGED


# -- recognising the kind --------------------------------------------------------------------------

#: The number of lines that are examined.
_TELLING_LINES: Final = 200

#: The beginnings of the names that the auditor gives its files.
_NAMES: Final[Mapping[str, Kind]] = {
    "bad_items": Kind.TABLE,
    "darkened_items": Kind.LIST,
    "deleted_properly_delete": Kind.ACTIONS,
    "failed_checks": Kind.LOG,
    "ia_set_": Kind.ACTIONS,
    "manual_check": Kind.ACTIONS,
    "merged_properly_delete": Kind.ACTIONS,
    "properly_empty": Kind.ACTIONS,
    "rederive_thumbnails": Kind.ACTIONS,
    "reindex": Kind.ACTIONS,
    "results_cache": Kind.RESULTS,
    "skipped_items": Kind.LOG,
}


def recognise(lines: Iterable[bytes], name: str) -> Kind | None:
    """Return the kind of a file, according to most of its first lines.

    The name decides if several kinds are equally likely, or if there are no lines.
    """
    telling = [line for line in lines if line.strip()][:_TELLING_LINES]
    by_name = next((kind for start, kind in _NAMES.items() if name.startswith(start)), None)
    if not telling:
        return by_name or Kind.LIST
    if is_heading(telling[0]):
        return Kind.TABLE
    votes = Counter(kind for line in telling if (kind := _kind_of(line)))
    if not votes:
        return None
    return max(votes, key=lambda kind: (votes[kind], kind is by_name))


def reader_for(kind: Kind, *, include_passed: bool) -> Reader:
    """Return a reader of files of this kind."""
    match kind:
        case Kind.TABLE:
            return TableReader()
        case Kind.RESULTS:
            return Reader(partial(_judge_result, passed=Verdict(PASSED if include_passed else 0)))
        case Kind.ACTIONS:
            return Reader(_judge_action)
        case Kind.LOG:
            return LogReader()
        case Kind.LIST:
            return Reader(_judge_in_list)


def may_be_empty(name: str) -> bool:
    """Return whether the auditor leaves a file of this name empty if it has nothing to list."""
    return any(kind is Kind.ACTIONS and name.startswith(start) for start, kind in _NAMES.items())


def is_heading(line: bytes) -> bool:
    """Return whether a line names the columns of a table."""
    return line[:5].lower() == b"mbid," or line[:7].lower() == b'"mbid",'


def _kind_of(line: bytes) -> Kind | None:
    gid, tail = _split_line(line)
    _, *columns = tail.rstrip().split(b"\t")
    if gid is None or b"," in tail[:1]:
        return None
    match columns:
        case []:
            return Kind.LIST
        case [_]:
            return Kind.LOG
        case [_, outcome] if outcome in _OUTCOMES:
            return Kind.RESULTS
        case [url, *_] if b"://" in url:
            return Kind.ACTIONS
    return None
