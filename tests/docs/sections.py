"""
The pages of the documentation, and the sections in them that follow from the code.

``python -m tests.docs.sections`` updates every section, between its markers.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from runner import errors
from runner.cli.main import COMMANDS, load_command
from runner.core.advice import advice
from runner.core.lifecycle import TRANSITIONS, State, describe, describe_recovery
from runner.core.model import FailureClass
from runner.errors import RunnerError
from runner.schema import catalog
from runner.simulator.faults import FAULTS, RequestKind
from tests.docs import editor_schema

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_FOLDERS = ("manifests", "runner", "schemas", "tests", ".github")
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [*ROOT.glob("*.md"), *(path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.md"))]
}
"""Every page, by its path from the root."""


def states() -> Iterator[str]:
    """List what each state means, and what the next run does with a job whose process died in it."""
    yield "| state | meaning | a job that was in it when the process died |"
    yield "|---|---|---|"
    for state in State:
        yield f"| `{state}` | {describe(state)} | {describe_recovery(state)} |"


def diagram() -> Iterator[str]:
    """Draw the transition table."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    [*] --> pending"
    for state, arrows in TRANSITIONS.items():
        by_target: dict[State, list[str]] = {}
        for event, target in arrows.items():
            by_target.setdefault(target, []).append(event.replace("_", " "))
        for target, events in by_target.items():
            yield f"    {state} --> {target}: {', '.join(events)}"
    yield "```"


def layers() -> Iterator[str]:
    """Draw the layers of packages as the import contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    names = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    width = max(map(len, names))
    edge = f"+{'-' * (width + 2)}+"
    yield "```"
    yield edge
    for name in names:
        yield f"| {name.ljust(width)} |"
        yield edge
    yield "```"


def schemas() -> Iterator[str]:
    """List the schemas of models: what each is for, and which document it follows."""
    found = catalog.load_catalog()
    yield "| schema | what it is for | models | document |"
    yield "|---|---|---|---|"
    for name in found.names:
        document = found.document(name)
        models = [*document["x-models"], *document.get("x-alternative", {}).get("models", ())]
        source = document["x-source"]
        cells = [
            f"[{name}]({name}.schema.json)",
            document["title"],
            ", ".join(f"`{model}`" for model in models),
            f"{source['page']}, {source['revision']}",
        ]
        yield f"| {' | '.join(map(_cell, cells))} |"


def failure_classes() -> Iterator[str]:
    """List what to do about each failure class."""
    yield "| class | what to do |"
    yield "|---|---|"
    for cls in FailureClass:
        yield f"| `{cls}` | {advice(cls)} |"


def error_references() -> Iterator[str]:
    """List every error that a command can end with."""
    yield "| reference | exit | when |"
    yield "|---|---|---|"
    for error in error_tree(RunnerError):
        if error.reference != RunnerError.reference:
            yield f"| `error[{error.reference}]` | {error.exit_code} | {_first_sentence(error.__doc__)} |"


def commands() -> Iterator[str]:
    """Describe every command with its options."""
    for name, summary in COMMANDS.items():
        command = load_command(name)
        context = click.Context(command, info_name=f"runner {name}")
        yield f"### `{' '.join([f'runner {name}', *_arguments(command)])}`"
        yield ""
        yield summary
        yield ""
        options = [
            option for option in command.params if isinstance(option, click.Option) and not option.hidden
        ]
        if options:
            yield "| option | description |"
            yield "|---|---|"
            for option in options:
                record = option.get_help_record(context)
                assert record is not None
                yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
            yield ""


def manifest_keys() -> Iterator[str]:
    """List every key of a manifest, as its schema describes it."""
    document = json.loads((ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))
    yield "| key | meaning | default | example |"
    yield "|---|---|---|---|"
    yield from _keys(document, document["properties"], "")


def scenario_keys() -> Iterator[str]:
    """List every key of a scenario, as its schema describes it."""
    document = catalog.load_catalog().document("scenario")
    yield "| key | meaning | default | example |"
    yield "|---|---|---|---|"
    yield from _keys(document, document["properties"], "")


def faults() -> Iterator[str]:
    """List every fault of the simulator, the requests that it applies to, and its options with their defaults."""
    yield "| fault | what happens | requests | options |"
    yield "|---|---|---|---|"
    for name, fault in FAULTS.items():
        kinds = [kind for kind in RequestKind if kind in fault.request_kinds]
        requests = "all" if len(kinds) == len(RequestKind) else ", ".join(f"`{kind}`" for kind in kinds)
        options = [
            f"`{option}: {_plain(default)}`"
            for option, default in fault.options.items()
            if default is not False
        ]
        yield f"| `{name}` | {_cell(fault.summary)} | {requests} | {', '.join(options)} |"


def _keys(document: Mapping[str, Any], properties: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, written in properties.items():
        rules = _resolved(document, written)
        default = "" if "default" not in rules else f"`{_plain(rules['default'])}`"
        examples = rules.get("examples", [])
        example = f"`{_plain(examples[0])}`" if examples else ""
        yield f"| `{prefix}{name}` | {_cell(rules.get('description', ''))} | {default} | {_cell(example)} |"
        yield from _below(document, rules, f"{prefix}{name}")


def _below(document: Mapping[str, Any], rules: Mapping[str, Any], path: str) -> Iterator[str]:
    if "properties" in rules:
        yield from _keys(document, rules["properties"], f"{path}.")
    for either in (_resolved(document, each) for each in rules.get("anyOf", ())):
        # The faults of a scenario have a table of their own.
        if "properties" in either and "description" in either:
            yield from _keys(document, either["properties"], f"{path}.")
    rest = rules.get("additionalProperties")
    if isinstance(rest, dict) and "properties" in _resolved(document, rest):
        yield from _keys(document, _resolved(document, rest)["properties"], f"{path}.NAME.")
    if "items" in rules and "properties" in _resolved(document, rules["items"]):
        yield from _keys(document, _resolved(document, rules["items"])["properties"], f"{path}[].")


def _resolved(document: Mapping[str, Any], rules: Mapping[str, Any]) -> Mapping[str, Any]:
    # The fields of requests are in the schemas of their models.
    if not rules.get("$ref", "").startswith("#/") or rules["$ref"].startswith(editor_schema.REQUESTS):
        return rules
    target: Any = document
    for step in rules["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return {**target, **rules}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def error_tree(error: type[RunnerError]) -> Iterator[type[RunnerError]]:
    """Yield a class of errors and all below it, each before those that derive from it."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_tree(child)


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _arguments(command: click.Command) -> list[str]:
    return [
        parameter.make_metavar(click.Context(command))
        for parameter in command.params
        if isinstance(parameter, click.Argument)
    ]


SECTIONS: Mapping[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "diagram": diagram,
    "errors": error_references,
    "failure classes": failure_classes,
    "faults": faults,
    "layers": layers,
    "manifest keys": manifest_keys,
    "scenario keys": scenario_keys,
    "schemas": schemas,
    "states": states,
}


def with_sections(text: str) -> str:
    """Return a page's text with the current content of every generated section that it has a place for."""
    for name, section in SECTIONS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if pattern.search(text):
            content = "\n".join(section()).rstrip().replace("\\", r"\\")
            text = pattern.sub(rf"\1\n{content}\n\n\2", text)
    return text


def with_requests(schema: str) -> str:
    """Replace the line of the manifest's schema that is for editors, and derived from the schemas of the models."""
    requests = json.dumps(editor_schema.editor_requests(catalog.load_catalog()), ensure_ascii=False)
    return re.sub(r'(?m)^    "requests": .*$', lambda _: f'    "requests": {requests},', schema)


MANIFEST_SCHEMA = ROOT / "schemas" / "manifest.schema.json"

if __name__ == "__main__":
    MANIFEST_SCHEMA.write_text(with_requests(MANIFEST_SCHEMA.read_text("utf-8")), "utf-8")
    for page in PAGES.values():
        page.write_text(with_sections(page.read_text(encoding="utf-8")), encoding="utf-8")
