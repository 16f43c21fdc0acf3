"""The model and the input style select the schema; if none fits, the error names the closest one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.core.problem import Finding
from runner.schema import catalog
from runner.schema.catalog import Catalog
from runner.schema.request_schema import RequestSchema

CATALOG = catalog.load_catalog()
SEEDANCE = "seedance-1-0-pro-250528"


@pytest.mark.parametrize(
    ("request_", "schema_name", "expected"),
    [
        ({"model": "first-frame-video-model"}, None, "first-frame-video"),
        ({"model": "wan2.7-i2v", "media": []}, None, "wan2.7-i2v"),
        ({"model": "wan2.7-i2v"}, None, "wan2.7-i2v"),
        ({"model": "wan2.7-i2v", "image": "x"}, None, "first-frame-video"),
        ({"model": "wan2.7-i2v", "image": "x", "media": []}, None, "wan2.7-i2v"),
        ({"model": "wan2.2-kf2v-flash"}, None, "wan-kf2v"),
        ({"model": SEEDANCE, "prompt": "x"}, None, "seedance-1"),
        ({"model": SEEDANCE, "media": []}, None, "seedance-1-media"),
        ({"model": SEEDANCE, "media": [], "prompt": "x"}, None, "seedance-1-media"),
        ({"model": "wan2.2-i2v-flash", "image": "x"}, "first-frame-video", "first-frame-video"),
        ({"model": "anything"}, "any", "any"),
        ({"model": SEEDANCE, "media": []}, "seedance-1", "seedance-1-media"),
        ({"model": SEEDANCE, "prompt": "x"}, "seedance-1-media", "seedance-1-media"),
        ({"model": "wan2.7-r2v", "media": []}, None, "wan2.7-r2v"),
        ({"model": "wan2.7-r2v", "subject_reference": []}, None, "wan2.7-r2v-subject"),
        ({"model": "wan2.7-r2v", "subject_reference": []}, "wan2.7-r2v", "wan2.7-r2v-subject"),
        ({"model": "wan2.7-r2v", "subject_reference": [], "media": []}, None, "wan2.7-r2v"),
        ({"model": "wan2.7-t2v"}, None, "wan2.7-t2v"),
        ({"model": "wan3.0-video-prime"}, None, "wan3.0"),
        ({"model": "dreamina-seedance-2-0-mini-260615"}, None, "seedance-2.0"),
        ({"model": "dreamina-seedance-2-5-260628"}, None, "seedance-2.5"),
        ({"model": "MiniMax-Hailuo-2.3-Fast"}, None, "hailuo"),
    ],
)
def test_schema_is_chosen(request_: dict[str, Any], schema_name: str | None, expected: str) -> None:
    """The named schema and the other forms of its family win, then the model, then the keys of the request."""
    schema = CATALOG.select(request_, schema_name)

    assert isinstance(schema, RequestSchema)
    assert expected == schema.name


@pytest.mark.parametrize(
    ("request_", "schema_name", "path", "message", "hint"),
    [
        (
            {"model": "wan2.7-i2"},
            None,
            ("model",),
            "model: no schema knows 'wan2.7-i2'",
            "did you mean 'wan2.7-i2v'",
        ),
        ({"model": 5}, None, ("model",), "model: 5 is a number, not text", None),
        ({"model": ["x"]}, None, ("model",), "model: a list is not text", None),
        ({}, None, (), "missing key 'model' in request", "the models are first-frame-video-model"),
        ({"model": "x"}, "wan-kf2", (), "unknown schema 'wan-kf2'", "did you mean 'wan-kf2v'?"),
        (
            {"model": "wan3.0-video", "image": "x"},
            "first-frame-video",
            ("model",),
            "model: 'wan3.0-video' is not a model of the schema 'first-frame-video'",
            "its own schema is wan3.0: leave out 'schema'",
        ),
        (
            {"model": "wan2.7-t2v", "image": "x"},
            "first-frame-video",
            ("model",),
            "model: 'wan2.7-t2v' is not a model of the schema 'first-frame-video'",
            "its own schema is wan2.7-t2v",
        ),
        (
            {"model": "anything", "image": "x"},
            "first-frame-video",
            ("model",),
            "model: 'anything' is not a model of the schema 'first-frame-video'",
            "for a new model: ",
        ),
    ],
)
def test_no_schema_fits(
    request_: dict[str, Any], schema_name: str | None, path: Any, message: str, hint: str | None
) -> None:
    """A request that no schema fits is an error with the closest name."""
    finding = CATALOG.select(request_, schema_name)

    assert isinstance(finding, Finding)
    assert (path, message) == (finding.path, finding.message)
    assert (hint is None) == (finding.hint is None)
    assert (finding.hint or "").startswith(hint or "")


def test_unknown_model_names_the_way_out() -> None:
    """A model that no schema knows can be used in three ways, and another product is not suggested."""
    finding = CATALOG.select({"model": "veo"})

    assert isinstance(finding, Finding)
    hint = finding.hint or ""
    assert all(way in hint for way in ("runner schema import FILE", "schemas: [FILE]", "schema: any"))
    assert "did you mean" not in hint


@pytest.mark.parametrize(
    "name", sorted(path.name.removesuffix(".schema.json") for path in CATALOG.folder.glob("*.json"))
)
def test_file_is_a_schema(name: str) -> None:
    """Every file in schemas/ is a valid JSON Schema 2020-12."""
    document = CATALOG.document(name)

    Draft202012Validator.check_schema(document)

    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", CATALOG.names)
def test_every_property_is_described(name: str) -> None:
    """Each property has the document's description."""
    document = CATALOG.document(name)

    assert document["title"]
    assert document["x-source"]["page"]
    assert [key for key, rules in document["properties"].items() if not rules.get("description")] == []


def test_installed_schemas_win(tmp_path: Path) -> None:
    """A folder of schemas is all that a catalog needs, wherever it is."""
    for path in CATALOG.folder.glob("wan-*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    assert Catalog(tmp_path).names == ("wan-kf2v",)


def test_only_schemas_that_are_used_are_read(tmp_path: Path) -> None:
    """A run of one model does not keep the schemas of the others in memory."""
    names = ("seedance-1", "wan-kf2v")
    for name in names:
        (tmp_path / f"{name}.schema.json").write_bytes(
            CATALOG.folder.joinpath(f"{name}.schema.json").read_bytes()
        )
    known = Catalog(tmp_path)
    (tmp_path / "wan-kf2v.schema.json").unlink()

    schema = known.select({"model": SEEDANCE})

    assert names == known.names
    assert CATALOG.schema("seedance-1").document == getattr(schema, "document", None)
    with pytest.raises(FileNotFoundError):
        known.schema("wan-kf2v")


def test_nothing_heavy_is_imported_to_check() -> None:
    """Selecting a schema and checking a clean request never imports the slow validator or the client."""
    script = """
import sys
from runner.schema import catalog
c = catalog.load_catalog()
for name in c.names:
    schema = c.schema(name)
    schema.is_clean(schema.normalize(schema.document["x-example"]))
print([name for name in ("jsonschema", "aiohttp", "difflib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
