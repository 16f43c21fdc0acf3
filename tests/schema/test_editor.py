"""What an editor shows of a manifest: the schema for editors, and a language server that reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runner.schema.catalog import load_catalog
from tests.docs.sections import MANIFEST_SCHEMA, with_requests

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog()
MANIFEST = "version: 1\njobs:\n  - request:\n      model: {}\n      {}\n"


def test_the_file_is_current() -> None:
    """What the schema of manifests has for editors is derived from the models' schemas of today."""
    text = MANIFEST_SCHEMA.read_text("utf-8")

    assert text == with_requests(text)


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_manifests_have_no_marks(path: Path) -> None:
    """Placeholders, numbers for digits, either case and keys that defaults have are not errors for an editor."""
    validator = jsonschema_rs.validator_for(CATALOG.document("manifest"))

    document = _json_values(path)
    assert [] == [error.message for error in validator.iter_errors(document)]


def _json_values(path: Path) -> Any:
    """Read a manifest as the program does: by the core schema of YAML 1.2."""
    from runner.manifest.document import open_document

    document = open_document(path, lambda problem: pytest.fail(str(problem)))
    jobs = [entry.value for entry in document.entries(lambda problem: pytest.fail(str(problem)))]
    return {**document.header.value, "jobs": jobs}


@pytest.mark.parametrize("model", CATALOG.models)
def test_marks(model: str) -> None:
    """Examples of every model have no mark; an unknown field and a value that is not allowed have one."""
    validator = jsonschema_rs.validator_for(CATALOG.document("manifest"))
    document = CATALOG.document(CATALOG.models[model][0])
    example = {**document.get("x-examples-by-model", {}).get(model, document["x-example"]), "model": model}
    example = {key: value for key, value in example.items() if key in ("model", "prompt")}

    def marks(**fields: object) -> int:
        job = {"request": {**example, **fields}}
        return len(list(validator.iter_errors({"version": 1, "jobs": [job]})))

    assert 0 == marks()
    assert 0 == marks(seconds="${seconds}")
    assert 1 <= marks(unknown_field=1)
    assert 1 <= marks(seconds=1300)


@pytest.mark.parametrize(
    ("defaults", "is_marked"),
    [
        ({"request": {"watermark": False, "seconds": "30", "of_an_own_schema": 1}}, False),
        ({"request": {"seconds": "1300"}}, True),
        ({"request": {"watermark": "maybe"}}, True),
        ({"models": {"wan2.7-t2v": {"seconds": 5, "size": "720p"}, "own": {"length": 1}}}, False),
        ({"models": {"wan2.7-t2v": {"seconds": "99"}}}, True),
        ({"models": {"wan2.7-t2v": {"ratio": "1:1"}}}, True),
    ],
)
def test_marks_in_defaults(defaults: dict[str, Any], is_marked: bool) -> None:
    """Defaults of all jobs may be what any model allows, those of a model what it allows; own models are unknown."""
    validator = jsonschema_rs.validator_for(CATALOG.document("manifest"))

    document = {"version": 1, "jobs": [{"request": {"model": "wan2.7-t2v"}}], "defaults": defaults}

    assert is_marked == bool(list(validator.iter_errors(document)))


@pytest.fixture(scope="module")
def server() -> list[str]:
    """Return the command of yaml-language-server, from the PATH or from npm's folder of it."""
    command = shutil.which("yaml-language-server", path=os.environ.get("YAML_LS_PATH", os.environ["PATH"]))
    if command is None:
        pytest.skip("needs yaml-language-server: npm install --global yaml-language-server")
    return [command, "--stdio"]


@contextmanager
def _session(command: list[str]) -> Iterator[_Client]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield _Client(process)
    finally:
        process.kill()
        process.communicate()


class _Client:
    """Speaks the language server protocol over the standard streams of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._id = 0
        self.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self.notify("initialized", {})

    def notify(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def request(self, method: str, params: Any) -> Any:
        self._id += 1
        self._send({"id": self._id, "method": method, "params": params})
        return self.wait(lambda message: message.get("id") == self._id and "method" not in message)["result"]

    def wait(self, is_wanted: Any) -> Any:
        """Read messages up to the wanted one; questions of the server get an empty answer."""
        while True:
            message = self._read()
            if is_wanted(message):
                return message
            if "id" in message and "method" in message:
                items = message.get("params", {}).get("items", [])
                self._send({"id": message["id"], "result": [None] * len(items)})

    def diagnostics(self, uri: str, text: str) -> list[Any]:
        """Open a document, and return its marks."""
        item = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})
        message = self.wait(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri
            )
        )
        marks: list[Any] = message["params"]["diagnostics"]
        return marks

    def completions(self, uri: str, line: int, character: int) -> set[str]:
        """Return the labels that are offered at a position, from 0."""
        position = {"line": line, "character": character}
        found = self.request("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})
        return {item["label"] for item in (found["items"] if isinstance(found, dict) else found)}

    def _send(self, message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> Any:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline().strip()) or not length:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            assert line or length, "the server has ended"
        return json.loads(stream.read(length))


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("is_copy", [True, False])
def test_a_language_server(server: list[str], is_copy: bool, tmp_path: Path) -> None:
    """Inside a request an editor offers every model, its fields and their values, and marks what is not allowed."""
    schema = MANIFEST_SCHEMA
    if is_copy:
        schema = tmp_path / "with blank" / "manifest.schema.json"
        schema.parent.mkdir()
        schema.write_text(json.dumps(CATALOG.document("manifest")))
    head = f"# yaml-language-server: $schema={schema.as_uri()}\n"
    with _session(server) as client:
        uri = (tmp_path / "m.yaml").as_uri()

        def show(number: int, model: str, field: str) -> tuple[str, list[Any]]:
            uri = (tmp_path / f"{number}.yaml").as_uri()
            return uri, client.diagnostics(uri, head + MANIFEST.format(model, field))

        assert [] == show(0, "seedance-1-0-pro-250528", "prompt: x")[1]
        uri, marks = show(1, "seedance-1-0-pro-250528", "seconds: 13")
        starts = [mark["range"]["start"] for mark in marks]
        assert {(5, 15)} == {(start["line"], start["character"]) for start in starts}
        assert set(CATALOG.models) <= client.completions(uri, 4, 13)
        assert {"2", "12"} <= client.completions(uri, 5, 15)
        uri, _ = show(2, "wan3.0-video", "s")
        assert set(CATALOG.document("wan3.0")["properties"]) - {"model"} <= client.completions(uri, 5, 7)
