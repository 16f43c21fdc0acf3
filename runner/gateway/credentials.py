"""
API keys, from the environment and from files that it names.

Keys stand in no manifest, no argument and no message: what is shown of a key is its
fingerprint, and what is wrong with one is said without repeating it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from runner.core.settings import DEFAULT_KEY_NAME
from runner.errors import CredentialsMissing, UsageError

POOL_NAME = "POWERTOKENS_API_KEYS"
"""The variable that may hold several keys, read where the manifest names none of its own."""

MOST_FILE_BYTES = 64 * 1024

_SEPARATORS = re.compile(r"[,\r\n]")
# What an Authorization header can carry as one word; quotes are the remains of a wrong paste.
_KEY = re.compile(r"[!#-&(-~]+", re.ASCII)


class ApiKey(Struct, frozen=True):
    """
    A key and its public name.

    Attributes:
        fingerprint: Stored and shown in place of the key.
        secret: Never shown, not even by ``repr``.
    """

    fingerprint: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKey({self.fingerprint!r})"


class KeySet(Struct, frozen=True):
    """
    The keys to run with.

    Attributes:
        keys: In the order they are named, each once; at least one.
        unset: Variables that the manifest names and that hold no key.
    """

    keys: tuple[ApiKey, ...]
    unset: tuple[str, ...] = ()


def fingerprint(key: str) -> str:
    """
    Name a key by the first 12 hex digits of its SHA-256, from which it can't be guessed.

    >>> fingerprint("sk-example")
    'f2d4b279b82a'
    """
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def read_keys(names: Iterable[str], environ: Mapping[str, str]) -> KeySet:
    """
    Collect the keys that the environment holds under these names.

    For each name the variable itself counts, or else the file that NAME_FILE names.
    Either may hold several keys, separated by commas or line breaks. Where the names
    are the default, ``POWERTOKENS_API_KEYS`` counts too.

    Raises:
        CredentialsMissing: There is no key, or something that can't be one.
    """
    wanted = list(dict.fromkeys(names)) or [DEFAULT_KEY_NAME]
    by_default = wanted == [DEFAULT_KEY_NAME]
    if by_default:
        wanted.append(POOL_NAME)
    secrets = {name: _read_variable(name, environ) for name in wanted}
    keys = {fingerprint(secret): secret for held in secrets.values() for secret in held}
    if not keys:
        raise CredentialsMissing(
            f"no API key is set in {' or '.join(wanted)}",
            hint=f"export {wanted[0]}=YOUR_KEY, or {wanted[0]}_FILE=PATH_TO_A_FILE_WITH_IT",
        )
    unset = () if by_default else tuple(name for name in wanted if not secrets[name])
    return KeySet(tuple(ApiKey(public, secret) for public, secret in keys.items()), unset)


def _read_variable(name: str, environ: Mapping[str, str]) -> list[str]:
    text, place = environ.get(name, ""), name
    file = environ.get(f"{name}_FILE", "").strip()
    if not text.strip() and file:
        text, place = _read_file(Path(file), f"{name}_FILE"), f"{name}_FILE"
    secrets = [part for part in map(str.strip, _SEPARATORS.split(text)) if part]
    for secret in secrets:
        if not _KEY.fullmatch(secret):
            raise CredentialsMissing(
                f"{place} holds something that can't be an API key: {_complaint(secret)}",
                hint=f"set {place} to the bare key, without quotes, blanks or the word Bearer",
            )
    return secrets


def _read_file(path: Path, name: str) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialsMissing(
            f"{name} names {path}, which can't be read: {error.strerror}", hint=f"mend the path in {name}"
        ) from error
    if len(content) > MOST_FILE_BYTES:
        raise CredentialsMissing(
            f"{name} names {path}, which is too large to hold a key", hint=f"mend the path in {name}"
        )
    # What is not UTF-8 becomes a character that no key can have, and is refused as such.
    return content.decode("utf-8-sig", "replace")


def _complaint(secret: str) -> str:
    if not secret.isascii():
        return "a character outside ASCII"
    if not secret.isprintable():
        return "a control character"
    return "a blank" if " " in secret else "a quotation mark"


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
