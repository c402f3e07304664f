"""Hides secrets in every text that leaves the process.

The secrets are known beforehand from the settings and from the URLs among the arguments. A secret
that no sentence would contain is hidden everywhere. One that looks like a word is hidden only where
values stand, because hiding it elsewhere would remove words from messages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self

from artwork_backfill.shared.settings import Settings, url_secrets

HIDDEN: Final = "***"

#: Secrets that are shorter, or of letters alone up to this length, may be words of a message.
_SHORTEST_DISTINCT: Final = 4
_LONGEST_WORD: Final = 16

#: What precedes a value: a sign, or the name of a kind of secret.
_BEFORE_VALUE: Final = r"""(?P<before>[=:/?&"'`(]|\b(?i:password|secret|token|key) )"""

#: The user and password of a URL that was not known beforehand.
_USER_OF_URL: Final = re.compile(r"""://[^\s/?#"'<>]*@""")


class Redactor:
    """Replace secrets in texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first, so that a secret that contains another is hidden completely.
        texts = sorted(filter(None, secrets), key=len, reverse=True)
        self._texts = frozenset(texts)
        distinct = [text for text in texts if not _may_be_word(text)]
        words = [text for text in texts if _may_be_word(text)]
        self._anywhere = re.compile(_any_of(distinct)) if distinct else None
        self._as_value = (
            re.compile(rf"{_BEFORE_VALUE}(?:{_any_of(words)})(?!\w)") if words else None
        )

    @classmethod
    def of_process(cls, settings: Settings, options: Iterable[object] = ()) -> Self:
        """Return a redactor of the secrets in the settings, arguments and options of a process."""
        texts = _texts_in([*sys.argv[1:], *options])
        in_arguments = {secret for text in texts for secret in url_secrets(text)}
        return cls(settings.secrets() | in_arguments)

    def text(self, text: str) -> str:
        """Return the text with every secret replaced."""
        if text in self._texts:
            return HIDDEN
        text = _USER_OF_URL.sub(f"://{HIDDEN}@", text)
        if self._anywhere is not None:
            text = self._anywhere.sub(HIDDEN, text)
        if self._as_value is not None:
            text = self._as_value.sub(rf"\g<before>{HIDDEN}", text)
        return text

    def value(self, value: object) -> Any:
        """Return the value with every secret in its texts replaced, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return value


def _texts_in(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _texts_in(value)


def _may_be_word(secret: str) -> bool:
    if len(secret) < _SHORTEST_DISTINCT:
        return True
    return len(secret) <= _LONGEST_WORD and (secret.isalpha() or secret.isdecimal())


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))
