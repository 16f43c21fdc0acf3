"""Limits that JSON Schema can't express: recommended words of a text, and bytes of a request."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from msgspec import Struct

from runner.core.problem import Finding, Severity
from runner.core.units import format_size

# Kana, Hangul, and every plane of Han.
_CJK = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"


@cache
def _cjk() -> re.Pattern[str]:
    """Compile the pattern for the first long text: so large a class takes milliseconds."""
    return re.compile(_CJK)


class WordLimit(Struct, frozen=True):
    """The longest text that a document recommends, in Chinese characters and in words."""

    cjk: int
    words: int

    def excess(self, text: str) -> str | None:
        """
        Describe a text that is too long; return None if it is not.

        >>> WordLimit(cjk=2, words=3).excess("小猫 runs")
        >>> WordLimit(cjk=2, words=3).excess("小猫们 run")
        '3 Chinese characters, where at most 2 are recommended'
        """
        # A word has at least one character: most prompts need no counting.
        if len(text) <= min(self.cjk, self.words):
            return None
        cjk = 0 if text.isascii() else len(_cjk().findall(text))
        if cjk > self.cjk:
            return f"{cjk} Chinese characters, where at most {self.cjk} are recommended"
        words = len((_cjk().sub(" ", text) if cjk else text).split())
        if words > self.words:
            return f"{words} words, where at most {self.words} are recommended"
        return None


class BodyLimit(Struct, frozen=True):
    """Bytes of the body above which there is a warning, and above which the server refuses it (fact F27)."""

    warning: int
    error: int

    def finding(self, size_bytes: int) -> Finding | None:
        """
        Return what is wrong with a body of this size, or None.

        >>> BodyLimit(warning=10_000_000, error=64_000_000).finding(12_500_000).message
        'the request has 12.5 MB; more than 10 MB may be refused'
        """
        size = f"the request has {format_size(size_bytes)}"
        hint = "use public URLs instead of data in the request"
        if size_bytes > self.error:
            return Finding((), f"{size}; more than {format_size(self.error)} is refused", hint)
        if size_bytes > self.warning:
            return Finding(
                (), f"{size}; more than {format_size(self.warning)} may be refused", hint, Severity.WARNING
            )
        return None


def body_bytes(request: Any) -> int:
    """
    Measure a request as it would be sent.

    >>> body_bytes({"prompt": "小猫"})
    19
    """
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"), default=str)
    return len(text.encode("utf-8", "replace"))
