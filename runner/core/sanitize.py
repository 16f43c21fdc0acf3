"""
Make text from outside safe to show: one line of limited length, without secrets or control characters.

Everything that the API writes goes through `sanitize_line` before it reaches a message, the store or a
terminal.

Only this module decides what an API key looks like, for two purposes. `looks_like_key` is for refusing a
text in a manifest, so it requires the full form of a key: no prompt may be refused by mistake. `redact`
hides part of a message, so the start of a key is enough.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "[redacted]"

MIN_KEY_CHARS = 20
"""No shorter text looks like a key; callers on the hot path check the length first."""
KEY_HINT = "keep the key in an environment variable, and its name under gateway.api_keys"
"""What to do about a text that looks like a key."""

# The rest of a longer text is ignored.
_MAX_READ_CHARS = 20_000

# Each is compiled when the first text needs it: small manifests have no long ones, and most commands no messages.

# Words have no digits; names such as api_key are followed by a value.
_LONG_VALUE = "(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{24,}"
_KEY = (
    r"(?a)(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{17,}"
    r"|\b[Bb]earer\s+(?=[A-Za-z._~+/-]*[0-9])[A-Za-z0-9._~+/-]{16,}"
    rf"|(?i:\bapi[_-]?key|\bauthorization|\bsecret(?:[_-]?key)?)[\"']?\s*[:=]\s*[\"']?{_LONG_VALUE}"
)

# Escape sequences are removed as a whole first: without the escape character their letters would remain.
_ANSI = r"(?s)\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?"
# Slashes may be escaped if an upstream's JSON is quoted inside a message.
_URL = r"""(?i)(?<![\w+.-])([a-z][a-z0-9+.-]{0,30}:\\?/\\?/)(?:[^\s/\\@"'<>?#]*@)?([^\s"'<>?#]*)([?#][^\s"'<>]*)?"""
# Matches only from the start of a word: trying from each letter of a long word would take seconds.
_SENSITIVE_NAME = (
    r"(?<![\w-])[\w-]*(?:signature|credential|token|secret|api[_-]?key|accesskeyid|authorization)[\"']?\s*"
)
_SECRETS = (
    r"(?i)\b(bearer\s+)[^\s\"',;]+",
    r"(?i)(?<![a-z0-9])()(?:sk-[a-z0-9_*.-]{3,}|[sprak]k[-_][a-z0-9_*.-]{12,})",
    rf"(?i)({_SENSITIVE_NAME}=\s*[\"']?)[^\s&\"',;]+",
    rf"(?i)({_SENSITIVE_NAME}:\s*[\"']?){_LONG_VALUE}",
)
"""What is hidden, each with a group for the part in front of it that remains."""
# 32 letters and digits or more in a row, outside a URL.
_OPAQUE = r"(?i)(?<![a-z0-9/._-])(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{32,}(?![a-z0-9/.])"
# C1 controls, separators of lines, what sets directions or is invisible (the joiners of scripts and emoji
# excepted), lone surrogates, tag characters.
_HOSTILE = (
    "[\x80-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
_PICTURES = {**dict(enumerate(range(0x2400, 0x2420))), 0x7F: 0x2421, 0x09: 0x09, 0x0A: 0x0A}


def may_contain_key(line: str) -> bool:
    """
    Return whether a line of JSON may contain what `looks_like_key` finds; False for most lines.

    One search of the line is faster than one for each value. What is added to `_KEY` must be added here.
    """
    line = line.lower()
    return "sk-" in line or "key" in line or "bearer" in line or "secret" in line or "authorization" in line


def looks_like_key(text: str) -> bool:
    """
    Return whether a text contains something that looks like an API key, and so must never be shown.

    Prompts, URLs (including signed ones) and data URIs do not.

    >>> looks_like_key("sk-" + "a1B2c3D4" * 6), looks_like_key("Bearer of bad news, a kitten walks in")
    (True, False)
    """
    # Few texts pass these searches for fixed letters, which cost a fraction of the regular expression.
    has_prefix = "sk-" in text or "earer" in text
    if not has_prefix and ((":" not in text and "=" not in text) or text.startswith(("http://", "https://"))):
        return False
    if len(text) < MIN_KEY_CHARS or text.startswith("data:"):
        return False
    return re.search(_KEY, text) is not None


def redact(text: str, secrets: Iterable[str] = (), *, opaque: bool = False) -> str:
    """
    Replace keys and signatures: the given ones, and whatever looks like one.

    A URL keeps its scheme, host and path, and loses its user name and its query, because the query of a
    signed URL gives access to the file.

    Args:
        secrets: Texts to hide wherever they occur.
        opaque: Whether long sequences of letters and digits are hidden too. If a user wrote them in the
            wrong place they may be a key; if the API wrote them they are ids and digests.

    >>> redact("Invalid token sk-abcdef123")
    'Invalid token [redacted]'
    >>> redact("could not fetch https://cdn.example/a.png?X-Signature=0f3a, try again")
    'could not fetch https://cdn.example/a.png try again'
    """
    # The longest first, because one secret may begin with another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = re.sub(_URL, r"\1\2", text)
    for pattern in _SECRETS:
        text = re.sub(pattern, rf"\1{HIDDEN}", text)
    return re.sub(_OPAQUE, HIDDEN, text) if opaque else text


def sanitize_text(text: str, *, max_chars: int) -> str:
    r"""
    Show control characters as pictures, and cut a long text. Tabs and line breaks are kept.

    >>> sanitize_text("red \x1b[31m", max_chars=100), sanitize_text("a" * 30, max_chars=5)
    ('red ␛[31m', 'aaaaa… (30 characters)')
    """
    if len(text) <= max_chars and text.isascii() and text.isprintable():
        return text
    shown = re.sub(_HOSTILE, "\ufffd", text[:max_chars]).translate(_PICTURES)
    return shown if len(text) <= max_chars else f"{shown}… ({len(text):,} characters)"


def escape_json(text: str) -> str:
    r"""
    Escape what can't be shown in a JSON text, which keeps its meaning.

    >>> escape_json('{"prompt": "a\u202eb"}')
    '{"prompt": "a\\u202eb"}'
    """
    return re.sub(f"\x7f|{_HOSTILE}", lambda match: json.dumps(match[0])[1:-1], text)


def sanitize_line(text: str, *, max_chars: int, secrets: Iterable[str] = ()) -> str:
    r"""
    Convert text from outside to one safe line of at most ``max_chars`` characters.

    Control, formatting and surrogate characters are removed, so that nothing can color a terminal,
    reverse the direction of a line, or be impossible to write as UTF-8.

    >>> sanitize_line("\x1b[31mbad\x1b[0m\n  request\x00", max_chars=100)
    'bad request'
    >>> sanitize_line("a long story", max_chars=7)
    'a long…'
    """
    text = re.sub(r"\s+", " ", re.sub(_ANSI, "", text[:_MAX_READ_CHARS]))
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    text = redact(text, secrets).strip()
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"


def command_text(*arguments: str | Path) -> str:
    r"""
    Quote a command so that it can be pasted into a shell.

    Characters that can't be shown are escapes, as bash and zsh read them. A path that looks like an option begins with `./`.

    >>> command_text("runner", "resume", "output/my run")
    "runner resume 'output/my run'"
    >>> print(command_text("a\u202eb"))
    $'a\u202eb'
    """
    return " ".join(map(_quoted, arguments))


def job_command(command: str, run_dir: str | Path, job_id: str, *options: str) -> str:
    """
    Quote a command about one job as `command_text` does, also if the job's id looks like an option.

    >>> job_command("show", "output/cats", "sky", "--answer"), job_command("show", "output/cats", "-1", "--answer")
    ('runner show output/cats sky --answer', 'runner show --answer -- output/cats -1')
    """
    if job_id.startswith("-"):
        return command_text("runner", command, *options, "--", run_dir, job_id)
    return command_text("runner", command, run_dir, job_id, *options)


def _quoted(argument: str | Path) -> str:
    text = str(argument)
    if text.startswith("-") and not isinstance(argument, str):
        text = f"./{text}"
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_shell_escape, text))}'"


def _shell_escape(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        # A byte of a path that is not UTF-8.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return f"\\U{ord(character):08x}" if ord(character) > 0xFFFF else f"\\u{ord(character):04x}"
