"""Runs from Python: jobs as mappings, texts for paths, checked options, and events."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.simulator.video import last_frame, video_spec

MODEL = "seedance-1-0-pro-250528"
SIMULATED = runner.RunOptions(simulate=True)


def _jobs(*names: str) -> Iterator[dict[str, Any]]:
    for name in names:
        yield {
            "id": name,
            "request": {"model": MODEL, "prompt": f"小猫 {name}: \x85 \u2028"},
            "metadata": {"n": Path(name)},
        }


@pytest.mark.slow
def test_jobs_are_mappings(tmp_path: Path) -> None:
    """
    A generator of jobs is run; the same call again does nothing, one more job is added, and each is paid for once.
    """
    folder = str(tmp_path / "out")
    settings = {"limits": {"in_flight": 2}}
    first = runner.run(jobs=_jobs("a", "b"), name="pets", settings=settings, output=folder, options=SIMULATED)
    again = runner.run(jobs=_jobs("a", "b"), name="pets", settings=settings, output=folder, options=SIMULATED)
    more = runner.run(
        jobs=_jobs("a", "b", "c"), name="pets", settings=settings, output=folder, options=SIMULATED
    )

    assert [0, 0, 0] == [first.exit_code, again.exit_code, more.exit_code]
    assert (False, True) == (first.did_nothing, again.did_nothing)
    assert 3 == (tmp_path / "out" / "simulator.jsonl").read_bytes().count(b"\n")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()]
    assert ["a", "b", "c"] == [line["job_id"] for line in lines]
    assert {"pets"} == {line["run"] for line in lines}
    assert ["小猫 a: \x85 \u2028", {"n": "a"}] == [lines[0]["request"]["prompt"], lines[0]["metadata"]]
    assert runner.check(tmp_path / "out" / "manifest.yaml").is_valid


@pytest.mark.slow
def test_relative_paths_begin_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local picture of a job from Python is found from where the program runs, not from the run directory."""
    monkeypatch.chdir(tmp_path)
    picture = last_frame(video_spec({"model": MODEL, "size": "720p"}, "1f" * 32))
    (tmp_path / "a.png").write_bytes(picture[0 : picture.size])
    job = {"id": "a", "request": {"model": MODEL, "prompt": "a", "image": "./a.png"}}

    done = runner.run(jobs=[job], options=SIMULATED)

    assert (0, "output/jobs-simulated") == (done.exit_code, done.run_dir.as_posix())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "name a manifest, or pass jobs="),
        ({"manifest": "m.yaml", "jobs": []}, "name a manifest, or pass jobs="),
        ({"manifest": "m.yaml", "name": "x"}, "are for jobs="),
        ({"jobs": ["a.yaml"]}, r"jobs\[0\] is a str, not a mapping"),
        ({"jobs": [{"id": "a"}, {"request": {"x": object()}}]}, r"jobs\[1\]: a object can't be sent as JSON"),
        (
            {"jobs": [{"request": {"model": MODEL, "prompt": "x\ud800"}}]},
            r"jobs\[0\]: '\\ud800' is half of a surrogate",
        ),
        ({"jobs": [{"request": {}}], "name": "\udcff"}, "name: '\\\\udcff' is half of a surrogate pair"),
        ({"jobs": []}, "."),
        ({"jobs": [{"request": {"model": MODEL, "sedonds": 4}}]}, "nothing was submitted"),
        ({"manifest": "absent.yaml"}, "absent.yaml"),
        (
            {"manifest": "absent.yaml", "output": "x", "options": runner.RunOptions(scenario="demo")},
            "simulate",
        ),
    ],
)
def test_wrong_calls(
    arguments: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an error of ours with the reason, and nothing is sent."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(runner.RunnerError, match=says):
        runner.run(**{"options": SIMULATED, **arguments})


def test_a_traceback_says_what_is_wrong(tmp_path: Path) -> None:
    """A notebook shows nothing else: the problems and the hint are notes of the error."""
    jobs = [{"request": {"model": MODEL, "prompt": "a", "sedonds": 4}}]

    with pytest.raises(runner.ManifestError) as caught:
        runner.run(jobs=jobs, output=tmp_path / "out", options=SIMULATED)

    problem, hint = caught.value.__notes__
    assert "did you mean 'seconds'?" in problem
    assert hint.startswith("hint: correct ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "3"),
        ("limit", -1),
        ("limit", 1.5),
        ("in_flight", 0),
        ("downloads", True),
        ("on_changed", "nonsense"),
        ("if_locked", "never"),
        ("max_failures", "many"),
        ("max_runtime", "an hour"),
        ("max_runtime", -5),
        ("stop_at", "25:00"),
        ("submit_rate", "60"),
        ("submit_rate", 0),
        ("simulate", "yes"),
        ("var", ["a"]),
        ("where", "split"),
        ("where", [5]),
        ("sample", 0),
    ],
)
def test_wrong_options(name: str, value: object) -> None:
    """The message names the option, and the hint what to look at."""
    with pytest.raises(runner.UsageError, match=name) as error:
        runner.RunOptions(**{name: value})  # type: ignore[arg-type]

    assert f"--{name.replace('_', '-')}" in (error.value.hint or "")


def test_a_wrong_choice_is_told_with_the_right_ones() -> None:
    """As on the command line, and not as a class of Python."""
    with pytest.raises(runner.UsageError, match="on_changed 'all' is not one of 'error', 'keep', 'rerun'"):
        runner.RunOptions(on_changed="all")  # type: ignore[arg-type]


def test_options_take_the_texts_of_the_command_line() -> None:
    """Durations, rates, shares and choices may be texts."""
    options = runner.RunOptions(
        max_runtime="1h",  # type: ignore[arg-type]
        drain_time="90s",  # type: ignore[arg-type]
        submit_rate="60/min",  # type: ignore[arg-type]
        max_failures="5%",  # type: ignore[arg-type]
        on_changed="keep",  # type: ignore[arg-type]
        where=["split=test", "seed>3"],  # type: ignore[arg-type]
    )

    assert (3600.0, 90.0, 1.0) == (options.max_runtime, options.drain_time, options.submit_rate)
    assert (0.05, runner.OnChanged.KEEP) == (options.max_failures, options.on_changed)
    assert ["split", "seed"] == [condition.name for condition in options.where]


def test_a_running_loop_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    """In a notebook `run` can't wait; the error names `run_async`, and nothing is left un-awaited."""

    async def notebook() -> None:
        runner.run("m.yaml", output=tmp_path)

    with pytest.raises(runner.UsageError, match="event loop is running") as error:
        asyncio.run(notebook())

    assert "use runner.run_async" in str(error.value)
    assert "await runner.run_async(...)" in (error.value.hint or "")


@pytest.mark.parametrize("function", [runner.run, runner.resume, runner.rerun])
def test_a_wrong_argument_is_an_error_of_the_function_that_was_called(
    function: Callable[..., object],
) -> None:
    """What is called inside is not named."""
    with pytest.raises(TypeError) as error:
        function(bad=1)

    assert f"{function.__name__}() got an unexpected keyword argument 'bad'" == str(error.value)


def test_an_error_is_the_only_one_in_its_traceback(tmp_path: Path) -> None:
    """That no event loop is running is no error, and none that another one happened in."""
    with pytest.raises(runner.StoreMissing) as error:
        runner.resume(tmp_path)

    assert error.value.__context__ is None


@pytest.mark.slow
def test_an_observer_that_fails_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run continues, and the first exception is a warning of the logger `runner`; events have task and files."""
    events: list[runner.JobEnded] = []

    def observe(event: object) -> None:
        if isinstance(event, runner.JobEnded):
            events.append(event)
        raise RuntimeError("mine")

    with caplog.at_level(logging.WARNING, "runner"):
        done = runner.run(jobs=_jobs("a"), output=tmp_path / "out", options=SIMULATED, observe=observe)

    assert 0 == done.exit_code
    assert ["the observer failed"] == [record.message for record in caplog.records]
    assert [tmp_path / "out" / "assets" / "a.mp4"] == list(events[0].paths)
    assert events[0].task_id
    assert runner.status(str(tmp_path / "out")).jobs == 1


NOT_UTF8 = """
import sys, runner
jobs = [{"id": chr(252), "request": {"model": "seedance-1-0-pro-250528", "prompt": chr(0x5c0f)}}]
for output in (sys.argv[1], sys.argv[1] + chr(252)):
    try:
        runner.run(jobs=jobs, output=output, options=runner.RunOptions(simulate=True))
    except runner.UsageError as error:
        print(error)
"""


@pytest.mark.slow
def test_names_that_a_locale_has_no_characters_for_are_refused(tmp_path: Path) -> None:
    """Nothing is submitted whose video no file could hold, where Python was told to use another encoding than UTF-8."""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

    done = subprocess.run(
        [sys.executable, "-c", NOT_UTF8, str(tmp_path / "out")],
        env={**os.environ, **locale},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )

    names = ("'\\xfc'", f"'{tmp_path}/out\\xfc'")
    assert [f"no file can be called {name} here, where names are in ascii" for name in names] == (
        done.stdout.splitlines()
    )


def test_help_lists_everything() -> None:
    """`help(runner)` has every public function and class, though they are loaded lazily."""
    text = pydoc.plain(pydoc.render_doc(runner))

    assert [] == [name for name in runner.__all__ if name not in text]
    assert "run_async(manifest" in text


@pytest.mark.slow
def test_examples_of_the_page_run_as_cells_of_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of the API's page run one after the other, with top-level await, and print what stands below them."""
    page = (Path(runner.__file__).parent / "api" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    cells = re.findall(r"```py\n(.*?)```(?:\n\n```text\n(.*?)```)?", page, re.DOTALL)

    async def notebook() -> None:
        values: dict[str, Any] = {}
        for code, expected in cells:
            result = eval(compile(code, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), values)
            if result is not None:
                await result
            assert expected == capsys.readouterr().out

    assert len(cells) >= 5
    asyncio.run(notebook())
