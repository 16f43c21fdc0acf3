"""Excel workbooks and Parquet files as row files."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from runner.core.model import Json
from runner.manifest.row_files import open_row_files
from runner.manifest.row_readers import RowFileError
from tests.manifest.helpers import SEEDANCE, read_jobs

_KEY = "sk-" + "a1B2c3D4" * 6
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_workbook(path: Path, sheets: Mapping[str, Mapping[str, Json]]) -> None:
    """Write a workbook as Excel does: texts inline, each value at its cell, such as ``B3``."""
    names = list(sheets)
    with ZipFile(path, "w", ZIP_DEFLATED) as book:
        book.writestr("[Content_Types].xml", f'<Types xmlns="{_TYPES}"/>')
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_LINKS}"><Relationship Id="r" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        listed = "".join(
            f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(names, 1)
        )
        book.writestr("xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>')  # fmt: skip
        links = "".join(
            f'<Relationship Id="r{n}" Type="{_OFFICE}/worksheet" Target="worksheets/{n}.xml"/>'
            for n in range(1, len(names) + 1)
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_LINKS}">{links}</Relationships>'
        )
        for number, cells in enumerate(sheets.values(), 1):
            book.writestr(f"xl/worksheets/{number}.xml", _sheet(cells))


def _sheet(cells: Mapping[str, Json]) -> str:
    rows: dict[int, str] = {}
    for place, value in cells.items():
        content = (
            f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
            if isinstance(value, str)
            else f'<c r="{place}"><v>{value}</v></c>'
        )
        row = int(place.lstrip("ABCDEFGH"))
        rows[row] = rows.get(row, "") + content
    body = "".join(f'<row r="{row}">{content}</row>' for row, content in rows.items())
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{body}</sheetData></worksheet>'


def rows_of(path: Path, **options: Json) -> list[tuple[int, dict[str, Json]]]:
    """Read the rows of a file that has no invalid row."""
    errors: list[object] = []
    files = open_row_files(path.parent, path.name, **options)
    rows = list(files.read(lambda _: None, lambda *error: errors.append(error)))
    assert not errors
    return rows


def test_a_workbook(tmp_path: Path) -> None:
    """The first sheet or the named one; numbers keep their type, whole ones are whole, empty rows are skipped."""
    pytest.importorskip("python_calamine")
    path = tmp_path / "a.xlsx"
    first = {"B2": "id", "C2": "seconds", "D2": "score", "B3": "a1", "C3": 5.0, "D3": 0.5, "B5": "a2"}
    write_workbook(path, {"One": first, "Two": {"A1": "prompt", "A2": "A kitten"}})

    assert [
        (3, {"id": "a1", "seconds": 5, "score": 0.5}),
        (5, {"id": "a2", "seconds": None, "score": None}),
    ] == rows_of(path)
    assert [(2, {"prompt": "A kitten"})] == rows_of(path, sheet="Two")


def test_mistakes_in_a_workbook(tmp_path: Path) -> None:
    """A message has the file, the row and the column of the cell."""
    pytest.importorskip("python_calamine")
    cells = {"B1": "prompt", "C1": "seconds", "B2": "A kitten", "C2": 99, "B3": "x", "E3": "y", "B4": _KEY}
    write_workbook(tmp_path / "a.xlsx", {"One": cells})
    (tmp_path / "b.xlsx").write_text("no workbook")
    write_workbook(tmp_path / "c.xlsx", {})
    request = f"request: {{model: {SEEDANCE}, prompt: '${{prompt}}', seconds: '${{seconds}}'}}"

    assert [
        "a.xlsx:2:3: jobs[0]: seconds: '99' is not allowed for seedance-1-0-pro-250528 (2 to 12)",
        "a.xlsx:3:5: jobs[0]: the cell has a value, and its column no name; the first row names every column",
    ] == read_jobs(tmp_path, f"- {{from: a.xlsx, {request}}}").problems[:2]
    assert "a.xlsx:4:2: jobs[0]: this looks like an API key" in read_jobs(tmp_path, f"- {{from: a.xlsx, {request}}}").problems[2]  # fmt: skip
    assert ["m.yaml:3:25: jobs[0]: sheet: 'a.xlsx' has no sheet 'Two'; it has One"] == read_jobs(
        tmp_path, "- {from: a.xlsx, sheet: Two}"
    ).problems
    assert (
        "'b.xlsx' is not a workbook of Excel (.xlsx)" in read_jobs(tmp_path, "- {from: b.xlsx}").problems[0]
    )
    assert "'c.xlsx' can't be read as a workbook" in read_jobs(tmp_path, "- {from: c.xlsx}").problems[0]


def test_a_workbook_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """A workbook that would fill the memory is refused before it is unpacked."""
    with ZipFile(tmp_path / "a.xlsx", "w", ZIP_DEFLATED, compresslevel=1) as book:
        book.writestr("xl/worksheets/1.xml", b"")
        book.infolist()[0].file_size = 2_000_000_000

    with pytest.raises(RowFileError, match=r"has 2 GB when it is unpacked"):
        rows_of(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("place", "cells"), [("A99999999999", "99,999,999,999"), ("XFD1048576", "17,179,869,184")]
)
def test_a_workbook_with_a_cell_far_below(place: str, cells: str, tmp_path: Path) -> None:
    """Room for all cells before it would end the process; a wide sheet of few rows is read."""
    pytest.importorskip("python_calamine")
    write_workbook(tmp_path / "far.xlsx", {"Sheet1": {"A1": "prompt", "A2": "x"}})
    with ZipFile(tmp_path / "far.xlsx") as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = parts["xl/worksheets/1.xml"]
    for row, at in ((place.lstrip("ADFX"), place), ("3", "XFD3")):
        far = f'<row r="{row}"><c r="{at}"><v>1</v></c></row></sheetData>'.encode()
        with ZipFile(tmp_path / "far.xlsx", "w") as book:
            for name, content in parts.items():
                book.writestr(name, sheet.replace(b"</sheetData>", far) if content is sheet else content)
        if row == "3":
            open_row_files(tmp_path, "far.xlsx")
            continue
        with pytest.raises(RowFileError, match=f"has {cells} cells up to the last one"):
            open_row_files(tmp_path, "far.xlsx")


def test_parquet(tmp_path: Path) -> None:
    """Values keep their types and their nesting; NaN is null, whole numbers are whole, times are text."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    columns = {
        "id": ["a", "b"],
        "seed": [7.0, math.nan],
        "style": [{"name": "x", "tags": ["y"]}, None],
        "at": [datetime(2026, 11, 21, tzinfo=UTC), None],
        "price": [Decimal("0.50"), Decimal("2.00")],
    }
    parquet.write_table(pa.table(columns), path)

    assert [
        (1, {"id": "a", "seed": 7, "style": {"name": "x", "tags": ["y"]}, "at": "2026-11-21T00:00:00+00:00", "price": 0.5}),
        (2, {"id": "b", "seed": None, "style": None, "at": None, "price": 2}),
    ] == rows_of(path)  # fmt: skip
    jobs = f"- {{id: '${{id}}', from: a.parquet, request: {{model: {SEEDANCE}, prompt: x, seconds: '${{seed}}'}}}}"
    assert ["a", "b"] == read_jobs(tmp_path, jobs).ids
    problems = read_jobs(tmp_path, jobs.replace("seed}", "price}")).problems
    assert ["a.parquet:1:5"] == [problem.partition(": ")[0] for problem in problems]

    path.write_bytes(b"PAR1")
    assert "'a.parquet' can't be read as Parquet" in read_jobs(tmp_path, jobs).problems[0]
    parquet.write_table(pa.table({"id": [b"\0"]}), path)
    assert ["a.parquet:1:1: jobs[0]: the cell is of a type that JSON does not have (bytes)"] == read_jobs(
        tmp_path, jobs.replace("${seed}", "5")
    ).problems


@pytest.mark.parametrize(("name", "package"), [("a.xlsx", "python_calamine"), ("a.parquet", "pyarrow")])
def test_an_absent_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    """Without the extra there is one message that names it."""
    write_workbook(tmp_path / name, {"One": {"A1": "id"}})
    monkeypatch.setitem(sys.modules, package, None)

    (problem,) = read_jobs(tmp_path, f"- {{from: {name}}}").problems

    assert f"needs {package.replace('_', '-')}, which is not installed" in problem
    assert f"pip install '.[{name.partition('.')[2]}]'" in problem
