"""File names from job ids: safe everywhere, and never the same for two ids."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.core.filenames import asset_path, file_stem
from runner.core.model import AssetKind

SUFFIXES = {AssetKind.VIDEO: ".mp4", AssetKind.LAST_FRAME: ".png"}
HARD_IDS = st.lists(
    st.sampled_from(
        [*"aAéÉßſsSıİiIKkΣςσ.-_~ /\\:*?\x00\n\u0301\ud800", "con", "NUL", ".txt", "小猫", "ﬁ", "가"]
    ),
    max_size=6,
).map("".join)
STRANGE_IDS = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "../../etc/passwd",
    "-rf",
    ".hidden",
    "con",
    "nul.txt",
    "com1.a.b",
]
STRANGE_IDS += [
    "a.",
    "a ",
    "a:b",
    "a\nb",
    "a\0b",
    "Sky",
    "é",
    "a~b",
    "\u202egpj.a",
    "x" * 300,
    "小" * 90,
    "lpt9",
]
IDS = st.text(max_size=40) | HARD_IDS


def comparable(file_system: str, name: str) -> str:
    """Return what a file system distinguishes names by."""
    if file_system == "linux":
        return name
    if file_system == "windows":
        return name.upper()
    return unicodedata.normalize("NFD", name).casefold()


@pytest.mark.parametrize("job_id", ["sky", "grass-1-16.9", "wan2.7-i2v-3fa9c1", "小猫-01", "a_b", "console"])
def test_plain_ids_are_their_own_names(job_id: str) -> None:
    """A job with a simple id has files of that name."""
    assert f"assets/{job_id}.mp4" == asset_path(job_id, AssetKind.VIDEO, ".mp4", sharded=False)


@pytest.mark.parametrize("job_id", STRANGE_IDS)
def test_other_ids_are_altered_and_carry_a_digest(job_id: str) -> None:
    """What a file system would refuse, misread or confuse with another name is altered."""
    stem, _, digest = file_stem(job_id).rpartition("~")

    assert 16 == len(digest)
    assert stem not in ("", ".", "..")
    assert stem.split(".")[0] not in ("con", "nul", "com1", "lpt9")


@given(IDS)
@example("COM¹")
@example("x" * 1000)
def test_every_name_is_safe_everywhere(job_id: str) -> None:
    """One path component, printable, not hidden, no option, no device, and short enough with every suffix."""
    name = asset_path(job_id, AssetKind.LAST_FRAME, ".png", sharded=False).removeprefix("assets/")

    assert not set(name) & set('/\\:*?"<>|')
    assert all(unicodedata.category(char)[0] != "C" for char in name)
    assert name[0] not in ".- "
    assert name.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1", "CONIN$"}
    assert len(unicodedata.normalize("NFD", name + ".invalid").encode()) <= 255


@pytest.mark.parametrize("file_system", ["linux", "windows", "macos"])
@given(st.lists(IDS, unique=True, min_size=2, max_size=8), st.booleans())
@example(["sky", "Sky", "SKY"], False)
@example(["é", "e\u0301", "É"], False)
@example(["straße", "strasse", "STRASSE"], False)
@example(["ı", "i", "I", "İ"], False)
@example(["a/b", "a_b", "a\\b"], True)
@example(["a", "a.last_frame", "a.mp4", "a.mp4.part"], False)
def test_two_ids_never_share_a_name(file_system: str, job_ids: list[str], sharded: bool) -> None:
    """Even if case and the encoding of accents do not count, every job has its own files."""
    names = [
        comparable(file_system, asset_path(job_id, kind, suffix, sharded=sharded) + ending)
        for job_id in job_ids
        for kind, suffix in SUFFIXES.items()
        for ending in ("", ".part")
    ]

    assert len(names) == len(set(names))


@given(IDS)
def test_sharding_uses_256_folders_and_does_not_change_the_name(job_id: str) -> None:
    """The folder of a job's files follows from its id alone."""
    flat = asset_path(job_id, AssetKind.VIDEO, ".mp4", sharded=False).split("/")
    assets, folder, name = asset_path(job_id, AssetKind.VIDEO, ".mp4", sharded=True).split("/")

    assert [assets, name] == flat
    assert 0 <= int(folder, 16) < 256
