"""
Make text from outside fit to show: one line of bounded length, without secrets or control characters.

Everything that the API says goes through `clean` before it reaches a message, the
store or a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

# A message is read by people; what lies beyond this is not even looked at.
_MOST_READ_CHARS = 20_000

# Escape sequences first as a whole, or their letters would stay behind when the escape character goes.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?", re.DOTALL)
_SPACE = re.compile(r"\s+")
# Slashes may be escaped where an upstream's JSON is quoted inside a message.
_URL = re.compile(
    r"""\b(https?:\\?/\\?/)(?:[^\s/\\@"'<>?#]*@)?([^\s"'<>?#]*)([?#][^\s"'<>]*)?""", re.IGNORECASE
)
_KEY = re.compile(r"\bsk-[A-Za-z0-9_*.-]{3,}")
_BEARER = re.compile(r"\b(bearer\s+)[^\s\"',;]+", re.IGNORECASE)
# Begins only where a word does: from each letter of a long word anew, it would take seconds.
_PAIR = re.compile(
    r"""((?<![\w-])[\w-]*(?:signature|credential|token|secret|api[_-]?key|accesskeyid)["']?\s*=\s*["']?)[^\s&"',;]+""",
    re.IGNORECASE,
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """
    Hide keys and signatures: those handed in, and whatever looks like one.

    An address keeps its scheme, host and path, and loses its user name and its query,
    since the query of a signed address is a key to the file.

    >>> redact("Invalid token sk-abcdef123")
    'Invalid token [redacted]'
    >>> redact("could not fetch https://cdn.example/a.png?X-Signature=0f3a, try again")
    'could not fetch https://cdn.example/a.png try again'
    """
    # The longest first: one secret may begin with another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URL.sub(r"\1\2", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _KEY.sub(HIDDEN, text)
    return _PAIR.sub(rf"\1{HIDDEN}", text)


def sanitize_line(text: str, *, most_chars: int, secrets: Iterable[str] = ()) -> str:
    r"""
    Turn text from outside into one safe line of at most ``most_chars`` characters.

    Control, formatting and surrogate characters go, so that nothing can paint a
    terminal, reverse the direction of a line, or be impossible to write as UTF-8.

    >>> sanitize_line("\x1b[31mbad\x1b[0m\n  request\x00", most_chars=100)
    'bad request'
    >>> sanitize_line("a long story", most_chars=7)
    'a long…'
    """
    text = _SPACE.sub(" ", _ANSI.sub("", text[:_MOST_READ_CHARS]))
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    text = redact(text, secrets).strip()
    return text if len(text) <= most_chars else text[: most_chars - 1].rstrip() + "…"
