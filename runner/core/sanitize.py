"""
Text from outside, made safe to show: one line of bounded length, without secrets or control characters.

Everything that the API says goes through `sanitize_line` before it reaches a message,
the store or a terminal.

What an API key looks like is decided here alone, for two purposes. `looks_like_key`
refuses a text of a manifest, so it asks for the whole shape of a key: no prompt may be
refused by mistake. `redact` hides part of a message, so the beginning of a key is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

SHORTEST_KEY = 20
"""Characters: no shorter text is taken for a key; callers on the hot path check the length first."""

# A message is read by people; what lies beyond this is not even looked at.
_MOST_READ_CHARS = 20_000

# Words have no digits; names such as api_key are followed by a value.
_LONG_VALUE = "(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{24,}"
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|[spr]k_)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{17,}"
    r"|\b[Bb]earer\s+(?=[A-Za-z._~+/-]*[0-9])[A-Za-z0-9._~+/-]{16,}"
    rf"|(?i:\bapi[_-]?key|\bauthorization|\bsecret(?:[_-]?key)?)[\"']?\s*[:=]\s*[\"']?{_LONG_VALUE}",
    re.ASCII,
)

# The rest is compiled when the first message needs it: most commands show none.

# Escape sequences first as a whole, or their letters would stay behind when the escape character goes.
_ANSI = r"(?s)\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?"
# Slashes may be escaped where an upstream's JSON is quoted inside a message.
_URL = r"""(?i)(?<![\w+.-])([a-z][a-z0-9+.-]{0,30}:\\?/\\?/)(?:[^\s/\\@"'<>?#]*@)?([^\s"'<>?#]*)([?#][^\s"'<>]*)?"""
# Begins only where a word does: from each letter of a long word, it would take seconds.
_SECRET_NAME = (
    r"(?<![\w-])[\w-]*(?:signature|credential|token|secret|api[_-]?key|accesskeyid|authorization)[\"']?\s*"
)
_SECRETS = (
    r"(?i)\b(bearer\s+)[^\s\"',;]+",
    r"(?i)(?<![a-z0-9])()(?:sk-[a-z0-9_*.-]{3,}|[sprak]k[-_][a-z0-9_*.-]{12,})",
    rf"(?i)({_SECRET_NAME}=\s*[\"']?)[^\s&\"',;]+",
    rf"(?i)({_SECRET_NAME}:\s*[\"']?){_LONG_VALUE}",
)
"""What is hidden, each with a group for what stays in front of it."""
# 32 letters and digits or more without a break, outside an address.
_OPAQUE = r"(?i)(?<![a-z0-9/._-])(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{32,}(?![a-z0-9/.])"


def looks_like_key(text: str) -> bool:
    """
    Return whether a text contains something of the shape of an API key.

    Prompts, addresses (signed ones too) and data URIs are not taken for keys; what is
    taken for one must never be shown.

    >>> looks_like_key("sk-" + "a1B2c3D4" * 6), looks_like_key("Bearer of bad news, a kitten walks in")
    (True, False)
    """
    # Hardly a text gets past these searches for fixed letters; they cost a fraction of the expression's.
    has_prefix = "sk-" in text or "k_" in text or "earer" in text
    if not has_prefix and ((":" not in text and "=" not in text) or text.startswith(("http://", "https://"))):
        return False
    if len(text) < SHORTEST_KEY or text.startswith("data:"):
        return False
    return _KEY.search(text) is not None


def redact(text: str, secrets: Iterable[str] = (), *, opaque: bool = False) -> str:
    """
    Hide keys and signatures: those given, and whatever looks like one.

    An address keeps its scheme, host and path, and loses its user name and its query,
    since the query of a signed address is a key to the file.

    Args:
        secrets: Texts to hide wherever they occur.
        opaque: Whether long runs of letters and digits are hidden too. In what a user wrote in the
            wrong place they may be a key; in what the API says they are ids and digests.

    >>> redact("Invalid token sk-abcdef123")
    'Invalid token [redacted]'
    >>> redact("could not fetch https://cdn.example/a.png?X-Signature=0f3a, try again")
    'could not fetch https://cdn.example/a.png try again'
    """
    # The longest first: one secret may begin with another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = re.sub(_URL, r"\1\2", text)
    for pattern in _SECRETS:
        text = re.sub(pattern, rf"\1{HIDDEN}", text)
    return re.sub(_OPAQUE, HIDDEN, text) if opaque else text


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
    text = re.sub(r"\s+", " ", re.sub(_ANSI, "", text[:_MOST_READ_CHARS]))
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    text = redact(text, secrets).strip()
    return text if len(text) <= most_chars else text[: most_chars - 1].rstrip() + "…"
