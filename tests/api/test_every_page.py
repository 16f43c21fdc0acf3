"""Every example of the vendor's pages, from a manifest to a video that plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.api.options import RunOptions
from runner.api.run import run
from runner.results.reader import open_results
from tests.schema.families import FAMILIES, smallest_request, stored_pages

LINES = {"4k": 2160}
TYPES = {"mp4": (".mp4", "video/mp4"), "mov": (".mov", "video/quicktime")}
REQUESTS = Path(__file__).parents[1] / "schema" / "requests.jsonl"
"""Further valid requests, a line each: combinations that the pages describe and have no example of."""


def examples(family: str) -> dict[str, dict[str, Any]]:
    """Return the requests of each page, by the page and a number."""
    requests = {
        f"{page.page.replace('/', '-')}-{number}": request
        for page in stored_pages(family)
        for number, request in enumerate(page.examples or [smallest_request(page)])
    }
    for number, line in enumerate(REQUESTS.read_text(encoding="utf-8").splitlines()):
        request = json.loads(line)
        if request["model"] in FAMILIES[family]:
            requests[f"further-{number}"] = request
    return requests


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
async def test_examples_of_the_pages_run_and_play(family: str, tmp_path: Path) -> None:
    """Each example makes a video of the size and the length that it asks for, on the simulator."""
    requests = examples(family)
    jobs = [{"id": name, "request": request} for name, request in requests.items()]
    (tmp_path / "pages.yaml").write_text(yaml.safe_dump({"version": 1, "jobs": jobs}))
    (tmp_path / "quick.yaml").write_text("version: 1\ngenerate_s: 0\n")
    options = RunOptions(simulate=True, scenario=str(tmp_path / "quick.yaml"))

    result = await run(tmp_path / "pages.yaml", output=tmp_path / "out", options=options)

    pages = {page.page.replace("/", "-") for page in stored_pages(family)}
    assert pages | {"further"} == {name.rpartition("-")[0] for name in requests}
    assert 0 == result.exit_code
    lines = list(open_results(tmp_path / "out" / "results.jsonl"))
    assert len(jobs) == len(lines)
    for line in lines:
        request, asset = line.record.request, line.record.assets[0]
        suffix, content_type = TYPES[request.get("output_format", "mp4")]
        assert (suffix, content_type) == (Path(asset.path).suffix, asset.content_type)
        assert (tmp_path / "out" / asset.path).is_file()
        assert line.record.usage is not None
        assert round(asset.duration_s or 0) == line.record.usage["seconds"]
        assert line.record.usage["resolution"].endswith(("p", "P", "k"))
        assert family.startswith("seedance") == ("total_tokens" in line.record.usage)
        if "size" in request:
            size = request["size"].lower()
            assert LINES.get(size) or int(size.rstrip("p")) == min(asset.width or 0, asset.height or 0)
        if int(request.get("seconds", -1)) > 0:
            assert int(request["seconds"]) == round(asset.duration_s or 0)
