"""
API keys, from the environment and from files that it names.

Keys are in no manifest, no argument and no message: a key is shown as its
fingerprint, and an error about one does not repeat it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from pathlib import Path

from msgspec import Struct

from runner.core.key_pool import KeyPool
from runner.core.settings import DEFAULT_KEY_NAME
from runner.disk import read_small
from runner.errors import CredentialsMissing, UsageError

POOL_NAME = "POWERTOKENS_API_KEYS"
"""The variable that may hold several keys, read if the manifest names no variables."""

_MAX_FILE_BYTES = 64 * 1024

_SEPARATORS = re.compile(r"[,\r\n]")
# What an Authorization header can carry as one word; quotes are left over from pasting.
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


class Environment(dict[str, str]):
    """
    Variables, completed by a file that no option names.

    Attributes:
        trouble: What is wrong with the file, which matters only if a key is missing; None if nothing is.
    """

    def __init__(self, variables: Mapping[str, str], trouble: str | None = None) -> None:
        super().__init__(variables)
        self.trouble = trouble


class KeySet(Struct, frozen=True):
    """
    The keys of a run.

    Attributes:
        keys: In the order in which they are named, without duplicates; at least one.
        unset: Variables that the manifest names and that hold no key.
    """

    keys: tuple[ApiKey, ...]
    unset: tuple[str, ...] = ()


def fingerprint(key: str) -> str:
    """
    Return the first 12 hex digits of a key's SHA-256, from which the key can't be guessed.

    >>> fingerprint("sk-example")
    'f2d4b279b82a'
    """
    return hashlib.sha256(key.encode()).hexdigest()[:12]


class PooledKeys(KeyPool):
    """The pool of a run's keys, with the keys themselves."""

    def __init__(self, keys: KeySet) -> None:
        self._secrets = {key.fingerprint: key.secret for key in keys.keys}
        super().__init__(self._secrets)

    def secret(self, fingerprint: str) -> str:
        """Return the key itself."""
        return self._secrets[fingerprint]


def read_keys(names: Iterable[str], environ: Mapping[str, str]) -> KeySet:
    """
    Read the keys that the environment holds under some names.

    For each name the variable itself is read, or else the file that NAME_FILE names.
    Either may hold several keys, separated by commas or line breaks. If the names
    are the default, ``POWERTOKENS_API_KEYS`` is read too.

    Raises:
        CredentialsMissing: There is no key, or a value that can't be one.
    """
    names = list(dict.fromkeys(names)) or [DEFAULT_KEY_NAME]
    is_default = names == [DEFAULT_KEY_NAME]
    if is_default:
        names.append(POOL_NAME)
    by_name = {name: _read_variable(name, environ) for name in names}
    secrets = {fingerprint(secret): secret for found in by_name.values() for secret in found}
    if not secrets:
        trouble = environ.trouble if isinstance(environ, Environment) else None
        raise CredentialsMissing(
            f"no API key is set in {' or '.join(names)}" + (f"; {trouble}" if trouble else ""),
            hint=f"export {names[0]}=YOUR_KEY, or {names[0]}_FILE=PATH_TO_A_FILE_WITH_IT",
        )
    unset = () if is_default else tuple(name for name in names if not by_name[name])
    return KeySet(tuple(ApiKey(public, secret) for public, secret in secrets.items()), unset)


def _read_variable(name: str, environ: Mapping[str, str]) -> list[str]:
    text, source = environ.get(name, ""), name
    path = environ.get(f"{name}_FILE", "").strip()
    if not text.strip() and path:
        source = f"{name}_FILE"
        text = _read_key_file(Path(path), source)
    secrets = [part for part in map(str.strip, _SEPARATORS.split(text)) if part]
    for secret in secrets:
        if not _KEY.fullmatch(secret):
            raise CredentialsMissing(
                f"{source} holds a value that can't be an API key: it has {_invalid_part(secret)}",
                hint=f"set {source} to the bare key, without quotes, spaces or the word Bearer",
            )
    return secrets


def _read_key_file(path: Path, name: str) -> str:
    hint = f"check the path in {name}"
    try:
        content = read_small(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise CredentialsMissing(
            f"{name} names {path}, which can't be read: {error.strerror}", hint=hint
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise CredentialsMissing(f"{name} names {path}, which is too large to hold a key", hint=hint)
    # What is not UTF-8 becomes a character that no key can have, and is an error as such.
    return content.decode("utf-8-sig", "replace")


def _invalid_part(secret: str) -> str:
    if not secret.isascii():
        return "a character outside ASCII"
    if not secret.isprintable():
        return "a control character"
    return "a space" if " " in secret else "a quotation mark"


def parse_env(text: str, file: str, on_error: Callable[[UsageError], None] | None = None) -> dict[str, str]:
    r"""
    Parse the text of a ``.env`` file: NAME=VALUE lines. Nothing in a value is replaced.

    Args:
        on_error: Gets the error of each line that is left out, instead of the first one being raised.

    Raises:
        UsageError: There is another line: its number is given, its text is not.

    >>> parse_env("# ours\nexport A=sk-1 # mine\nB='x # y'\nC=\n", ".env")
    {'A': 'sk-1', 'B': 'x # y', 'C': ''}
    """
    # Few runs have such a file, and the import would delay the start of all others.
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        key, value, (original, line) = binding.key, binding.value, binding.original
        if binding.error or (key is not None and (value is None or not key.isidentifier())):
            # What belongs to a line starts with the empty lines before it.
            empty_lines = original[: -len(original.lstrip())].count("\n")
            error = UsageError(
                f"{file}:{line + empty_lines}: not a NAME=VALUE line",
                hint="correct the line, or comment it out with #",
            )
            if on_error is None:
                raise error
            on_error(error)
            continue
        if key is not None and value is not None:
            values[key] = value
    return values


def with_env_file(environ: Mapping[str, str], path: Path, *, is_named: bool = True) -> Environment:
    """
    Return the environment with the variables of a file for what is unset or empty in it.

    The path in a variable ``NAME_FILE`` of the file is relative to the file's folder.

    Args:
        is_named: Whether an option names the file. What is wrong with another one is the environment's trouble.

    Raises:
        UsageError: The file that is named can't be read, or does not consist of NAME=VALUE lines.
    """
    errors: list[UsageError] = []
    found: dict[str, str] = {}
    try:
        found = parse_env(_read_env_file(path), str(path), None if is_named else errors.append)
    except UsageError as error:
        if is_named:
            raise
        errors.append(error)
    files = {
        name: str(path.parent / value) for name, value in found.items() if value and name.endswith("_FILE")
    }
    variables = {**found, **files, **{name: value for name, value in environ.items() if value}}
    return Environment(variables, errors[0].message if errors else None)


def _read_env_file(path: Path) -> str:
    hint = "check the file, or name another one with --env-file"
    try:
        content = read_small(path, _MAX_FILE_BYTES)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is too large to be a file of variables", hint=hint)
    return text
