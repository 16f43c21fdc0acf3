"""New models: a schema of the user's own, one that is derived from a page, and no schema at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.api.models import import_schema
from runner.api.options import RunOptions
from runner.api.run import run
from runner.api.validate import check
from runner.errors import UsageError
from runner.results.reader import open_results
from tests.cli.command import runner

PAGE: dict[str, Any] = {
    "openapi": "3.0.1",
    "paths": {
        "/v1/videos": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Request"},
                            "examples": {"a": {"value": {"model": "veo-9", "prompt": "A kitten"}}},
                        }
                    }
                }
            }
        }
    },
    "components": {
        "schemas": {
            "Request": {
                "type": "object",
                "required": ["model", "prompt"],
                "properties": {
                    "model": {"type": "string", "enum": ["veo-9", "veo-9-fast"]},
                    "prompt": {"type": "string", "description": "What it shows.", "maxLength": 10},
                    "seconds": {
                        "type": "string",
                        "enum": ["4", "8"],
                        "x-linkage": {
                            "rules": [
                                {
                                    "when": {"field": "size", "operator": "eq", "value": "4k"},
                                    "set_options": ["4"],
                                }
                            ]
                        },
                    },
                    "size": {"type": "string", "enum": ["720p", "4k"]},
                },
            }
        }
    },
}
OWN = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"const": "veo-9"}, "n": {"type": "integer"}},
}


def write_manifest(folder: Path, jobs: list[dict[str, Any]], **header: Any) -> Path:
    """Write a manifest with these jobs."""
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"version": 1, **header, "jobs": jobs}, sort_keys=False))
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file."""
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
    return path


def messages(path: Path) -> list[str]:
    """Return the problems of a manifest with the names of their files, lines and columns."""
    return [
        f"{Path(problem.position.file).name}:{problem.position.line}:{problem.position.column} "
        f"{problem.severity} {problem.message}"
        for problem in check([path]).problems.problems
    ]


def test_own_schema_checks_its_model(tmp_path: Path) -> None:
    """The request of a model that only the manifest's own schema knows is normalized and checked by it."""
    write_json(tmp_path / "veo.schema.json", OWN)
    good = {"id": "a", "request": {"model": "veo-9", "n": "5"}}
    bad = {"id": "b", "request": {"model": "veo-9", "n": "x"}}

    assert [] == messages(write_manifest(tmp_path, [good], schemas=["veo.schema.json"]))
    assert ["manifest.yaml:8:8 error n: 'x' is text, not a whole number"] == messages(
        write_manifest(tmp_path, [bad], schemas=["veo.schema.json"])
    )


def test_own_schema_replaces_a_shipped_one(tmp_path: Path) -> None:
    """For a model that both know, the manifest's own schema decides."""
    own = {**OWN, "properties": {"model": {"const": "wan2.7-t2v"}}, "additionalProperties": True}
    write_json(tmp_path / "mine.schema.json", own)
    job = {"id": "a", "request": {"model": "wan2.7-t2v", "mood": "calm"}}

    assert [] == messages(write_manifest(tmp_path, [job], schemas=["mine.schema.json"]))
    assert ["manifest.yaml:6:5 error unknown key 'mood' in request"] == [
        text for text in messages(write_manifest(tmp_path, [job])) if "mood" in text
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type": \n', "own.json:2:1 error not JSON: Expecting value"),
        ("[1]", "own.json:0:0 error a schema is a mapping"),
        (
            '{\n "type": "text"}',
            "own.json:2:10 error type: 'text' is not valid under any of the given schemas",
        ),
        ({"type": "object"}, "own.json:1:1 error the schema names no model"),
        ({**OWN, "$ref": "https://example.com/a"}, "only references inside the document (#...) are followed"),
        (
            {**OWN, "x-warnings": [{"when": 5, "message": "x"}]},
            "x-warnings: [0].when: 5 is a number, not a mapping",
        ),
        ({**OWN, "x-body-bytes": 5}, "x-body-bytes: x-body-bytes: 5 is a number, not a mapping"),
        ({**OWN, "properties": {"model": {"const": "m"}, "n": {"pattern": "("}}}, "can't be compiled"),
        ({**OWN, "$ref": "#/$defs/none"}, "can't be compiled"),
        (b'{"a": "\xff"}', "manifest.yaml:3:3 error schemas: 'own.json' is not JSON in UTF-8, or too deep"),
        (None, "manifest.yaml:3:3 error schemas: 'own.json' can't be read: No such file or directory"),
    ],
)
def test_own_schema_that_cannot_be_used(tmp_path: Path, text: Any, expected: str) -> None:
    """A file that is not a schema of a request is an error at a position in it, before anything is sent."""
    if isinstance(text, bytes):
        (tmp_path / "own.json").write_bytes(text)
    elif text is not None:
        write_json(tmp_path / "own.json", text)
    job = {"id": "a", "schema": "any", "request": {"model": "veo-9"}}

    found = [one for one in messages(write_manifest(tmp_path, [job], schemas=["own.json"])) if "error" in one]

    assert 1 == len(found), found
    assert expected in found[0]


def test_name_of_a_shipped_schema_is_taken(tmp_path: Path) -> None:
    """Two schemas of one name would leave open which one a job names."""
    write_json(tmp_path / "wan-kf2v.schema.json", OWN)

    found = messages(
        write_manifest(
            tmp_path, [{"request": {"model": "wan2.7-t2v", "prompt": "x"}}], schemas=["wan-kf2v.schema.json"]
        )
    )

    assert ["manifest.yaml:3:3 error schemas: there is a schema 'wan-kf2v' already"] == found


async def test_any_schema_runs_with_a_warning(tmp_path: Path) -> None:
    """A model that no schema knows is sent unchecked, with a warning in its result line."""
    jobs = [{"id": "a", "schema": "any", "request": {"model": "veo-9", "prompt": "x", "mood": ["calm"]}}]
    path = write_manifest(tmp_path, jobs)
    (tmp_path / "quick.yaml").write_text("version: 1\ngenerate_s: 0\n")

    result = await run(
        path,
        output=tmp_path / "out",
        options=RunOptions(simulate=True, scenario=str(tmp_path / "quick.yaml")),
    )

    assert 0 == result.exit_code
    (line,) = open_results(tmp_path / "out" / "results.jsonl")
    assert {"model": "veo-9", "prompt": "x", "mood": ["calm"]} == line.record.request
    assert ["schema: any sends the request as it is, unchecked"] == list(line.record.warnings)


async def test_failed_manifest_has_the_schemas(tmp_path: Path) -> None:
    """What failed can be run again: the manifest of the rest names the user's own schemas."""
    write_json(tmp_path / "veo.schema.json", OWN)
    path = write_manifest(tmp_path, [{"id": "a", "request": {"model": "veo-9"}}], schemas=["veo.schema.json"])
    (tmp_path / "fails.yaml").write_text("version: 1\ngenerate_s: 0\nrules: [{task: {end: failed}}]\n")

    result = await run(
        path,
        output=tmp_path / "out",
        options=RunOptions(simulate=True, scenario=str(tmp_path / "fails.yaml")),
    )

    assert 1 == result.exit_code
    assert check([tmp_path / "out" / "failed.yaml"]).is_valid


def test_imported_schema_checks_requests(tmp_path: Path) -> None:
    """The schema that is derived from a page has its values, bounds and linkages; unknown keys are errors."""
    page = write_json(tmp_path / "page.json", PAGE)
    done = runner("schema", "import", page, "-o", tmp_path / "veo.schema.json")
    assert 0 == done.exit_code, done.stderr
    requests = [
        {"model": "veo-9-fast", "prompt": "x", "seconds": 4, "size": "4k"},
        {"model": "veo-9", "prompt": "x", "seconds": "8", "size": "4k"},
        {"model": "veo-9", "prompt": "x" * 11},
        {"model": "veo-9", "prompt": "x", "seed": 1},
    ]

    found = messages(
        write_manifest(
            tmp_path,
            [{"id": f"j{i}", "request": r} for i, r in enumerate(requests)],
            schemas=["veo.schema.json"],
        )
    )

    assert [
        "seconds: '8' is not allowed for veo-9 (only '4')",
        "prompt: 11 characters, more than the 10 allowed",
        "unknown key 'seed' in request",
    ] == [text.split(" error ")[1] for text in found]


def test_import_for_one_model(tmp_path: Path) -> None:
    """``--model`` takes one of the page's models, and names that of a page that lists none."""
    page = write_json(tmp_path / "page.json", PAGE)
    nameless = json.loads(json.dumps(PAGE))
    del nameless["components"]["schemas"]["Request"]["properties"]["model"]
    other = write_json(tmp_path / "other.json", nameless)

    assert ["veo-9-fast"] == import_schema(page, "veo-9-fast")["x-models"]
    assert ["sora-9"] == import_schema(other, "sora-9")["properties"]["model"]["enum"]
    with pytest.raises(UsageError, match="lists no model; name it with --model"):
        import_schema(other)
    with pytest.raises(UsageError, match="is not about veo-8; it lists veo-9, veo-9-fast"):
        import_schema(page, "veo-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "page.json:1:2: not JSON"),
        ("[]", "not an OpenAPI page of /v1/videos: document is not a mapping"),
        ({"paths": {}}, "paths./v1/videos is not a mapping"),
        ({"paths": {"/v1/videos": {"post": {}}}}, "has no schema for application/json"),
        (
            json.dumps(PAGE).replace("schemas/Request", "schemas/Other"),
            "'#/components/schemas/Other' leads nowhere",
        ),
        (
            json.dumps(PAGE).replace('"operator": "eq"', '"operator": "gt"'),
            "the linkage of seconds has an unknown form",
        ),
        (
            json.dumps(PAGE).replace('["model", "prompt"]', "5"),
            "is not an OpenAPI page of POST /v1/videos that can be read",
        ),
        (None, "can't be read: No such file"),
    ],
)
def test_page_that_cannot_be_imported(tmp_path: Path, text: Any, expected: str) -> None:
    """A file that is not such a page is an error that says why, without a traceback."""
    path = tmp_path / "page.json"
    if text is not None:
        write_json(path, text)

    done = runner("schema", "import", path)

    assert 2 == done.exit_code
    assert expected in " ".join(done.stderr.split())


def test_import_overwrites_nothing(tmp_path: Path) -> None:
    """An existing file stays as it is."""
    page = write_json(tmp_path / "page.json", PAGE)
    (tmp_path / "there.json").write_text("mine")

    done = runner("schema", "import", page, "--output", tmp_path / "there.json")

    assert 2 == done.exit_code
    assert "mine" == (tmp_path / "there.json").read_text()
    assert 2 == runner("schema", "manifest", page).exit_code
    assert 2 == runner("schema", "import").exit_code
