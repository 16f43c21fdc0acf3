"""The lock of known-good versions is complete, and contributors install with it."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.sections import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [
    *PROJECT["dependencies"],
    *(line for lines in PROJECT["optional-dependencies"].values() for line in lines),
]
LOCKED = [
    Requirement(line)
    for line in (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("text", NEEDED)
def test_every_dependency_is_locked(text: str) -> None:
    """The lock holds a version of each dependency, and one that pyproject.toml allows; .ci/lock writes it anew."""
    needed = Requirement(text)
    found = [lock for lock in LOCKED if canonicalize_name(needed.name) == canonicalize_name(lock.name)]

    assert found
    for lock in found:
        (pin,) = lock.specifier
        assert "==" == pin.operator
        assert pin.version in needed.specifier


def test_contributors_install_with_the_lock() -> None:
    """What the page for contributors installs are the versions that are known to work."""
    assert "-e '.[dev]' -c .ci/constraints.txt" in (ROOT / ".github/CONTRIBUTING.md").read_text("utf-8")
