"""What a manifest says besides its jobs, checked and as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.core.model import Json
from runner.core.settings import Settings
from runner.manifest.document import Document, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """
    What jobs get where they say nothing themselves.

    Attributes:
        request: For every job.
        models: By model, over `request`.
        metadata: For every job.
    """

    request: Mapping[str, Json] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """
    The keys of a manifest but `jobs`.

    Attributes:
        name: Names the run directory; a safe name of a directory.
        variables: `vars`, with those of the command line over them.
    """

    version: int
    name: str
    settings: Settings
    defaults: Defaults = Defaults()
    variables: Mapping[str, Json] = field(default_factory=dict)


def read_header(document: Document, report: Report, variables: Mapping[str, Json]) -> Header:
    """Read the header of a manifest, and report everything that is wrong with it."""
    value = document.header.value
    defaults = value.get("defaults") or {}
    name = value.get("name") or document.path.stem
    return Header(
        version=1,
        name=name,
        settings=Settings(name=name),
        defaults=Defaults(**defaults),
        variables={**(value.get("vars") or {}), **variables},
    )
