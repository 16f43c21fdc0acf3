"""
Files of NAME=VALUE lines, as they lie beside projects under the name ``.env``.

Read here rather than with python-dotenv for two reasons. That library takes ``$NAME``
and ``${NAME}`` in a value for other variables and skips lines that it does not
understand with a log message; a key must be taken as it stands, and a broken line
must stop the run, named by its number and not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from runner.errors import UsageError

MOST_BYTES = 64 * 1024

_NAME = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_COMMENT = re.compile(r"(?:^|\s)#.*")


def parse_env(text: str, file: str) -> dict[str, str]:
    r"""
    Read NAME=VALUE lines: ``export`` before, quotes around and comments behind are allowed.

    Nothing inside a value is replaced.

    Raises:
        UsageError: A line is something else; its number is given, its text is not.

    >>> parse_env("# ours\nexport A=sk-1 # mine\nB='x # y'\nC=\n", ".env")
    {'A': 'sk-1', 'B': 'x # y', 'C': ''}
    """
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        left, equals, right = line.partition("=")
        name, value = _NAME.fullmatch(left.strip()), _value(right.strip())
        if not equals or name is None or value is None:
            raise UsageError(
                f"{file}:{number}: not a NAME=VALUE line", hint="comment it out with #, or mend it"
            )
        values[name[1]] = value
    return values


def _value(text: str) -> str | None:
    """Take off quotes or a comment; None where a quotation is not closed or is followed by more."""
    quote = text[:1]
    if quote not in ("'", '"'):
        return _COMMENT.sub("", text).rstrip()
    inside, closed, rest = text[1:].partition(quote)
    return inside if closed and (not rest or _COMMENT.fullmatch(rest.strip())) else None


def with_env_file(environ: Mapping[str, str], path: Path) -> dict[str, str]:
    """
    Add what a file says to the environment, which wins wherever it is not empty.

    Raises:
        UsageError: The file can't be read, or is not one of NAME=VALUE lines.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="mend the path of --env-file"
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path} is too large to be a file of variables", hint="mend the path of --env-file")
    return {**parse_env(text, str(path)), **{name: value for name, value in environ.items() if value}}
