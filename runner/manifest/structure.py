"""
Which keys a manifest and its jobs may have, and of what types, as `manifest.schema.json` says.

The request inside a job is only a mapping here: its own schema comes later, when
defaults and placeholders are in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from runner.core.problem import Finding
from runner.core.spec import Json
from runner.schema.catalog import load


def job_findings(value: Json) -> list[Finding]:
    """List what is wrong with an element of `jobs`; for one without fault this takes a microsecond or two."""
    return [] if _fits(_job_validator(), value) else _explained(_job_schema(), value, "the job")


def header_findings(value: Json) -> list[Finding]:
    """List what is wrong with the keys of a manifest, its jobs apart."""
    schema = _header_schema()
    return [] if _fits(_compiled(schema), value) else _explained(schema, value, "the manifest")


def _fits(is_valid: Callable[[Json], bool], value: Json) -> bool:
    try:
        return is_valid(value)
    except ValueError:
        # What the fast validator can't carry, such as numbers past 64 bits, is not wrong for that.
        return False


def _explained(schema: dict[str, Json], value: Json, root: str) -> list[Finding]:
    # A manifest without fault is spared the import.
    from runner.schema.explain import explain

    return explain(schema, value, root=root)


def _header_schema() -> dict[str, Json]:
    # Whether there are jobs is told where the file is read: only there is their place known.
    return {**load().document("manifest"), "required": ["version"]}


def _job_schema() -> dict[str, Json]:
    schema = load().document("manifest")
    return {**schema["$defs"]["job"], "$defs": schema["$defs"]}


@cache
def _job_validator() -> Callable[[Json], bool]:
    return _compiled(_job_schema())


def _compiled(schema: dict[str, Json]) -> Callable[[Json], bool]:
    import jsonschema_rs

    is_valid: Callable[[Json], bool] = jsonschema_rs.Draft202012Validator(schema).is_valid
    return is_valid
