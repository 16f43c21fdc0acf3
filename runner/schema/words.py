"""
How long a prompt is, in Chinese characters and in words.

Seedance recommends at most 500 Chinese characters or 1,000 English words (wire
facts 5, row 16). The two are counted apart, since a prompt may mix them.
"""

from __future__ import annotations

import re
from functools import cache

from runner.core.value import frozen

# Kana, Hangul, and every plane of Han.
_CJK = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"


@cache
def _cjk() -> re.Pattern[str]:
    """Compile the pattern for the first long text: so large a class takes milliseconds."""
    return re.compile(_CJK)


@frozen
class WordLimit:
    """What a document recommends at most for one text."""

    cjk: int
    words: int

    def excess(self, text: str) -> str | None:
        """
        Say by how much a text is too long, or None where it is not.

        >>> WordLimit(cjk=2, words=3).excess("小猫 runs")
        >>> WordLimit(cjk=2, words=3).excess("小猫们 run")
        '3 Chinese characters, where at most 2 are recommended'
        """
        # A word takes a character at least: most prompts need no counting.
        if len(text) <= min(self.cjk, self.words):
            return None
        cjk = 0 if text.isascii() else len(_cjk().findall(text))
        if cjk > self.cjk:
            return f"{cjk} Chinese characters, where at most {self.cjk} are recommended"
        words = len((_cjk().sub(" ", text) if cjk else text).split())
        if words > self.words:
            return f"{words} words, where at most {self.words} are recommended"
        return None
