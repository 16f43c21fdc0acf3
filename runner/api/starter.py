"""The manifest that a new user begins with."""

from __future__ import annotations

from pathlib import Path

from runner.errors import UsageError
from runner.schema.catalog import load

FILE_NAME = "manifest.yaml"
_SCHEMA_PLACE = "SCHEMA_PATH"


def starter_text() -> str:
    """
    Give a commented manifest that runs as it stands with `--simulate`.

    Its first line leads editors to the schema that was installed with the program.

    >>> starter_text().startswith("# yaml-language-server: $schema=/")
    True
    """
    text = Path(__file__).with_name("starter.yaml").read_text(encoding="utf-8")
    return text.replace(_SCHEMA_PLACE, (load().folder / "manifest.schema.json").resolve().as_posix(), 1)


def write_starter(path: Path) -> Path:
    """
    Write the starter manifest to a new file, or into a folder as ``manifest.yaml``; return where it is.

    Raises:
        UsageError: A file is there already, which is left as it is; or none can be written there.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if path.exists():
        raise UsageError(
            f"{path} exists already, and was left as it is", hint="name another file: runner init NEW.yaml"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text())
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}", hint="name another place: runner init PATH"
        ) from None
    return path
