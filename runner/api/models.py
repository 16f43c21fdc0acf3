"""What can be run: the models, their parameters, and the schemas behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.core.problem import Finding
from runner.errors import UsageError
from runner.results.failed_manifest import flow
from runner.schema.catalog import load
from runner.schema.describe import Description, describe


def models() -> tuple[Description, ...]:
    """
    Describe every document, with the models that it is for.

    >>> [described.schema for described in models() if "wan2.7-r2v" in described.models]
    ['wan2.7-r2v']
    """
    catalog = load()
    return tuple(describe(catalog.schema(name)) for name in catalog.names)


def model(name: str) -> tuple[Description, ...]:
    """
    Describe one model by every document that it may be used with, the usual one first.

    >>> [described.input for described in model("wan2.7-i2v")]
    ['media', 'image']

    Raises:
        UsageError: No document knows it; the nearest name is given.
    """
    catalog = load()
    chosen = catalog.select({"model": name})
    if isinstance(chosen, Finding):
        raise UsageError(f"no document knows the model {name!r}", hint=_nearest(name, tuple(catalog.models)))
    return tuple(describe(catalog.schema(schema), name) for schema in catalog.models[name])


def schema(name: str = "manifest") -> dict[str, Any]:
    """
    Give a JSON Schema: of the ``manifest``, of a line of the ``result``, of a model, or by its own name.

    >>> schema("result")["title"]
    'A line of results.jsonl'

    Raises:
        UsageError: There is none of this name; the nearest one is given.
    """
    catalog = load()
    known = ("manifest", "result", *catalog.models, *catalog.names)
    if name not in known:
        raise UsageError(f"there is no schema {name!r}", hint=_nearest(name, known))
    return catalog.document(catalog.models[name][0] if name in catalog.models else name)


def example_job(described: Description, job_id: str = "example") -> str:
    """
    Write a document's example as a job that pastes into a manifest, under `jobs`.

    >>> print(example_job(model("wan2.7-r2v")[0]))
      - id: example
        request:
          model: wan2.7-r2v
          prompt: "Have the character wave to the camera and walk forward slowly."
          subject_reference: [{type: character, image: ["https://example.com/assets/subject-reference.png"]}]
    """
    return "\n".join(_example_lines(described, job_id))


def _example_lines(described: Description, job_id: str) -> Iterator[str]:
    yield f"  - id: {flow(job_id)}"
    # Where the model alone would choose another document, the job has to name this one.
    if load().select(described.example) is not load().schema(described.schema):
        yield f"    schema: {flow(described.schema)}"
    yield "    request:"
    for key, value in described.example.items():
        yield f"      {key}: {flow(value)}"


def _nearest(name: str, known: tuple[str, ...]) -> str:
    from runner.schema.wording import did_you_mean

    return did_you_mean(name, known) or f"there are {', '.join(known)}"


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
