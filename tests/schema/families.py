"""
Build the schemas of the families of models: what their pages say, and an overlay of what only prose says.

``python -m tests.schema.families`` writes ``schemas/NAME.schema.json`` from ``schemas/sources``; with a folder
of the vendor's OpenAPI pages as its argument, it reads these again first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from runner.schema.derive import Page, derive, listed, read_page

SCHEMAS = Path(__file__).parents[2] / "schemas"
SOURCES = SCHEMAS / "sources"
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "wan2.7-t2v": ("wan2.7-t2v",),
    "wan2.7-i2v": ("wan2.7-i2v",),
    "wan2.7-r2v": ("wan2.7-r2v",),
    "wan-kf2v": ("wan2.2-kf2v-flash", "wan2.1-kf2v-plus"),
    "wan3.0": ("wan3.0-video", "wan3.0-video-prime"),
    "seedance-1-media": (
        "seedance-1-5-pro-251215",
        "seedance-1-0-pro-250528",
        "seedance-1-0-pro-fast-251015",
    ),
    "seedance-2.0": (
        "dreamina-seedance-2-0-260128",
        "dreamina-seedance-2-0-fast-260128",
        "dreamina-seedance-2-0-mini-260615",
    ),
    "seedance-2.5": ("dreamina-seedance-2-5-260628",),
    "hailuo": ("MiniMax-Hailuo-02", "MiniMax-Hailuo-2.3", "MiniMax-Hailuo-2.3-Fast"),
}


def read_pages(folder: Path) -> dict[str, list[Page]]:
    """Read a folder of OpenAPI pages; return those of each family, in the order of its models."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        name = f"{path.parent.name}/{path.stem}"
        found.append(read_page(json.loads(path.read_bytes()), name, with_text=False))
    return {
        family: sorted(
            (page for page in found if page.models[0] in models),
            key=lambda page: models.index(page.models[0]),
        )
        for family, models in FAMILIES.items()
    }


def stored_pages(family: str) -> list[Page]:
    """Return what was read from the pages of a family."""
    return msgspec.json.decode((SOURCES / f"{family}.pages.json").read_bytes(), type=list[Page])


def smallest_request(page: Page) -> dict[str, Any]:
    """Return a request for a page with media, and without an example."""
    types = page.request["properties"]["media"]["items"]["properties"]["type"]["enum"]
    items = [
        {"type": "text", "text": "A kitten"},
        {"type": "first_frame", "url": "https://example.com/a.png"},
    ]
    return {"model": page.models[0], "media": [item for item in items if item["type"] in types]}


def build(family: str) -> dict[str, Any]:
    """Return the schema of a family: the base from its pages, under its overlay."""
    fragments = json.loads((SOURCES / "fragments.json").read_bytes())
    overlay = _expanded(json.loads((SOURCES / f"{family}.overlay.json").read_bytes()), fragments)
    pages = stored_pages(family)
    base = derive(pages)
    source = {"document": None, "pages": [page.page for page in pages]}
    document = listed(_merged({"x-source": source, **base}, overlay))
    _expand_item_rules(document)
    head = ("$schema", "$id", "title", "description", "x-source", "x-models")
    fixed = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:runner:schema:{family}",
        "additionalProperties": False,
        "x-body-bytes": {"warning": 10000000, "error": 64000000},
    }
    document = {**fixed, **document}
    return {**{key: document[key] for key in head}, **document}


def _expanded(value: Any, fragments: Mapping[str, Any]) -> Any:
    """Replace ``"use": NAME`` by the fragment of this name, under the other keys beside it."""
    if isinstance(value, list):
        return [_expanded(item, fragments) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: _expanded(child, fragments) for key, child in value.items() if key != "use"}
    return _merged(_expanded(fragments[value["use"]], fragments), own) if "use" in value else own


def _merged(base: Any, over: Any) -> Any:
    """Merge mappings; null removes, and warnings are added to those that are there."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None and key != "document":
            merged.pop(key, None)
        elif key in ("x-warnings", "item-rules") and key in merged:
            merged[key] = [*merged[key], *value]
        else:
            merged[key] = _merged(merged[key], value) if key in merged else value
    return merged


def _expand_item_rules(schema: Any) -> None:
    """Write ``item-rules``, which say how many items of which types a list may have, as JSON Schema."""
    for child in list(schema.values()) if isinstance(schema, dict) else schema:
        if isinstance(child, dict | list):
            _expand_item_rules(child)
    rules = schema.pop("item-rules", []) if isinstance(schema, dict) else []
    for rule in rules:
        words = {key: rule[key] for key in ("message", "hint") if key in rule}
        if rule.get("severity") == "warning":
            schema.setdefault("x-warnings", []).append({"when": refused(rule), **words})
        else:
            schema.setdefault("allOf", []).append({"not": refused(rule), "x-messages": {"not": words}})


def refused(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the lists that a rule refuses."""
    match rule:
        case {"most": most, "of": types}:
            return {"type": "array", **has(types), "minContains": most + 1}
        case {"least": least, "of": types}:
            return {"type": "array", "not": {**has(types), "minContains": least}}
        case {"with": types, "without": others}:
            return {"type": "array", **has(types), "not": has(others)}
        case {"with": types, "also": others}:
            return {"type": "array", "allOf": [has(types), has(others)]}
        case {"only": combinations}:
            sets = [
                {"minItems": len(types), "maxItems": len(types), "allOf": [has([name]) for name in types]}
                for types in combinations
            ]
            return {"type": "array", "not": {"anyOf": sets}}
    raise ValueError(f"unknown rule {rule}")


def has(types: list[str]) -> dict[str, Any]:
    """Return the schema of the lists with an item of one of these types."""
    allowed = {"const": types[0]} if len(types) == 1 else {"enum": types}
    return {"contains": {"type": "object", "required": ["type"], "properties": {"type": allowed}}}


def text_of(value: Any, width: int = 105, indent: int = 0) -> str:
    """Write JSON as the files in schemas/ have it: what fits on a line is on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent + len(flat) <= width and indent):
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(k)}: {text_of(v, width, indent + 2)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    if all(not isinstance(item, dict | list) for item in value):
        return flat
    return "[\n" + ",\n".join(pad + text_of(v, width, indent + 2) for v in value) + "\n" + " " * indent + "]"


def main(arguments: list[str]) -> None:
    """Write the schemas, after reading pages again if a folder is given."""
    if arguments:
        for family, pages in read_pages(Path(arguments[0])).items():
            if pages:
                text = text_of(msgspec.to_builtins(pages))
                (SOURCES / f"{family}.pages.json").write_text(f"{text}\n", encoding="utf-8")
    for family in FAMILIES:
        text = text_of(build(family))
        (SCHEMAS / f"{family}.schema.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
