"""What belongs to a dataset, and what the card tells of it; and exports that can't be made."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, FailureClass
from runner.export.columns import make_row, video_of
from runner.results.formats import line_bytes
from tests.cli.command import CommandResult, runner
from tests.export.runs import files_of, mixed_jobs, write_run
from tests.results.records import HOSTILE, VIDEO, succeeded, unsuccessful

Export = Callable[..., CommandResult]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Return a function that exports the run in the folder ``run`` to ``out``."""

    def call(*options: object) -> CommandResult:
        return runner("export", tmp_path / "run", tmp_path / "out", "--format", "parquet", *options)

    return call


def exported(folder: Path) -> list[str]:
    """Return the job ids of a dataset."""
    tables = [pq.read_table(path, columns=["job_id"]) for path in sorted((folder / "data").iterdir())]
    return [value for table in tables for value in table["job_id"].to_pylist()]


def refused(tmp_path: Path, result: CommandResult, text: str) -> None:
    """Require that an export was refused with a message, and left nothing."""
    assert (2, "") == (result.exit_code, result.stdout)
    assert text in result.stderr
    assert [] == [path.name for path in tmp_path.iterdir() if path.name not in ("run", "other")]


def test_conditions(tmp_path: Path, export: Export) -> None:
    """A job must meet every condition."""
    write_run(tmp_path / "run", mixed_jobs(10))

    assert 0 == export("--where", "split=train", "--where", "seed>6").exit_code
    assert ["job-7", "job-8"] == exported(tmp_path / "out")


def test_a_condition_in_another_form(tmp_path: Path, export: Export) -> None:
    """The message shows how conditions are written."""
    write_run(tmp_path / "run", mixed_jobs(1))

    refused(tmp_path, export("--where", "split"), "'--where': 'split' is not a condition: write NAME=VALUE")


def test_nothing_is_selected(tmp_path: Path, export: Export) -> None:
    """A dataset without rows is an error, whether nothing was selected or nothing succeeded."""
    write_run(tmp_path / "run", mixed_jobs(2))
    refused(tmp_path, export("--where", "seed>99"), "none of the 2 succeeded jobs is selected")

    write_run(tmp_path / "run", [unsuccessful("a", State.FAILED, FailureClass.MODERATION)])
    refused(tmp_path, export(), "0 of 1 job succeeded: there is nothing to export")


def test_a_run_that_is_not_finished(tmp_path: Path, export: Export) -> None:
    """What did not succeed is left out, and said."""
    others = [
        unsuccessful("x", State.FAILED, FailureClass.MODERATION),
        succeeded("y", state=State.PENDING, assets=()),
    ]
    write_run(tmp_path / "run", [*mixed_jobs(2), *others])

    assert "note: 2 jobs of 4 did not succeed, and are left out" in export().stderr
    assert ["job-0", "job-1"] == exported(tmp_path / "out")
    assert "| moderation | 1 |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", None], "job 'b' has no metadata.split"),
        (["train", "../x"], "metadata.split of job 'b' is '../x', which can't name a split"),
        (["train", "all"], "'all', which can't name a split"),
        (["train", "Train"], "the splits 'train' and 'Train' differ only in case"),
    ],
)
def test_values_that_are_not_splits(
    tmp_path: Path, export: Export, splits: list[str | None], message: str
) -> None:
    """Each job must have a split, under a name that every library and file system takes."""
    jobs = [
        succeeded(job_id, metadata={} if split is None else {"split": split})
        for job_id, split in zip("ab", splits, strict=True)
    ]
    write_run(tmp_path / "run", jobs)

    refused(tmp_path, export("--split", "metadata.split"), message)


def test_too_many_splits(tmp_path: Path, export: Export) -> None:
    """A value of which each job has its own is not a split."""
    write_run(tmp_path / "run", [succeeded(f"j{n}", metadata={"n": n}) for n in range(101)], content=b"x")

    refused(tmp_path, export("--split", "metadata.n"), "metadata.n has more than 100 values")


def test_bad_files_are_found_before_anything_is_copied(tmp_path: Path, export: Export) -> None:
    """Missing and short videos are named, all at once."""
    run = write_run(tmp_path / "run", mixed_jobs(3))
    (run / "assets" / "job-0.mp4").unlink()
    (run / "assets" / "job-2.mp4").write_bytes(b"short")

    result = export()

    refused(tmp_path, result, "2 videos can't be exported: assets/job-0.mp4 of job 'job-0' is missing; ")
    assert "assets/job-2.mp4 of job 'job-2' has 5 bytes instead of" in result.stderr
    assert 0 == export("--where", "job_id!=job-0", "--where", "job_id!=job-2").exit_code


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("assets/\x00.mp4", "has a name that no file can have"),
        ("assets/\x1b[31mred.mp4", "assets/red.mp4 of job 'a' is missing"),
        ("assets", "has "),
        ("results.jsonl/x", "can't be read: Not a directory"),
    ],
)
def test_hostile_paths(tmp_path: Path, export: Export, path: str, message: str) -> None:
    """A path of a results file from elsewhere is one clear error, and colors no terminal."""
    write_run(tmp_path / "run", [], append=True)
    line = line_bytes(succeeded("a", assets=(replace(VIDEO, path=path),)), run="r", gateway="g")
    (tmp_path / "run" / "results.jsonl").write_bytes(line)

    result = export()

    refused(tmp_path, result, message)
    assert "\x1b" not in result.stderr


def test_a_changed_video_is_found_by_its_digest(tmp_path: Path, export: Export) -> None:
    """Nothing is under the final name if one byte of one video is another."""
    run = write_run(tmp_path / "run", mixed_jobs(3))
    path = run / "assets" / "job-2.mp4"
    path.write_bytes(b"X" + path.read_bytes()[1:])

    result = export()

    assert 2 == result.exit_code
    assert "assets/job-2.mp4 of job 'job-2' has changed since it was downloaded" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_in_use(tmp_path: Path, export: Export) -> None:
    """An existing directory is never added to or replaced."""
    write_run(tmp_path / "run", mixed_jobs(1))
    (tmp_path / "out").mkdir()
    assert 0 == export().exit_code
    before = (tmp_path / "out" / "README.md").read_bytes()

    result = export()

    assert 2 == result.exit_code
    assert "out exists already" in result.stderr
    assert before == (tmp_path / "out" / "README.md").read_bytes()


def test_no_run(tmp_path: Path, export: Export) -> None:
    """A directory without a run is named."""
    (tmp_path / "run").mkdir()

    refused(tmp_path, export(), "is not a run directory")


def test_verdicts(tmp_path: Path, export: Export) -> None:
    """The last verdict of a job counts; a last line that is incomplete does not."""
    lines = [
        ("job-0", "keep"),
        ("job-1", "keep"),
        ("job-0", "reject"),
        ("job-0", "keep"),
        ("job-1", "reject"),
    ]
    run = write_run(tmp_path / "run", mixed_jobs(3))
    refused(tmp_path, export("--verdict", "keep"), "there are no verdicts on the 3 succeeded jobs")
    text = "".join(json.dumps({"job_id": job, "verdict": verdict, "at": 1}) + "\n" for job, verdict in lines)
    (run / "verdicts.jsonl").write_text(text + '{"job_id": "job-2", "ver')

    assert 0 == export("--verdict", "keep").exit_code
    assert ["job-0"] == exported(tmp_path / "out")


def test_verdicts_of_checks(tmp_path: Path, export: Export) -> None:
    """Checks reject where no person has judged, also without a file of verdicts; a person's verdict comes first."""
    by_checks = {"value": "reject", "by": "checks", "why": "black"}
    run = write_run(tmp_path / "run", [replace(job, verdict=by_checks) for job in mixed_jobs(3)])

    assert 0 == export("--verdict", "reject").exit_code
    assert ["job-0", "job-1", "job-2"] == exported(tmp_path / "out")
    (run / "verdicts.jsonl").write_text('{"job_id": "job-1", "verdict": "keep"}\n')
    for verdict, job_ids in (("keep", ["job-1"]), ("reject", ["job-0", "job-2"])):
        assert (
            0
            == runner(
                "export", run, tmp_path / verdict, "--format", "parquet", "--verdict", verdict
            ).exit_code
        )
        assert job_ids == exported(tmp_path / verdict)


def test_a_bad_verdict_is_an_error(tmp_path: Path, export: Export) -> None:
    """A line that is not a verdict is not passed over: it may have been a rejection."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    (run / "verdicts.jsonl").write_text('\n{"job_id": "job-0", "verdict": "nice"}\n')

    refused(tmp_path, export("--verdict", "keep"), "verdicts.jsonl:2 is not a verdict")


def test_the_card(tmp_path: Path, export: Export) -> None:
    """The head is YAML that hubs read, and text from outside is not markup."""
    jobs = [
        succeeded("a", model="<b>|evil|</b>", metadata={"license": "cc-by-4.0"}),
        succeeded("b", metadata={"license": "cc-by-4.0"}),
    ]
    write_run(tmp_path / "run", jobs)
    export()

    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert ("cc-by-4.0", ["text-to-video"]) == (card["license"], card["task_categories"])
    assert "synthetic" in card["tags"]
    assert [{"split": "train", "path": "data/train-*.parquet"}] == card["configs"][0]["data_files"]
    assert "| \\<b\\>\\|evil\\|\\</b\\> | 1 |" in body
    assert "runner 0.1.0" in body


def test_licenses_that_differ(tmp_path: Path, export: Export) -> None:
    """A license that is not that of every video is not the license of the dataset."""
    write_run(tmp_path / "run", [succeeded("a", metadata={"license": "mit"}), succeeded("b")])
    export()

    assert "license: other\n" in (tmp_path / "out" / "README.md").read_text()


def test_hostile_text_is_data(tmp_path: Path, export: Export) -> None:
    """Captions come back as they were, and neither they nor job ids lead out of the dataset."""
    texts = [*HOSTILE, "../../etc/passwd", "\x00", "猫" * 33_334]
    jobs = [succeeded(f"../{n}/X", metadata={"caption": text}) for n, text in enumerate(texts)]
    write_run(tmp_path / "run", jobs)

    assert 0 == export().exit_code
    table = pq.read_table(next((tmp_path / "out" / "data").iterdir()))
    assert texts == table["caption"].to_pylist()
    assert all("/" not in video["path"] for video in table["video"].to_pylist())
    assert {"run", "out"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("dataset_format", ["videofolder", "webdataset"])
def test_hostile_captions_are_files(tmp_path: Path, dataset_format: str) -> None:
    """A caption beside its video is what it was, and only its content: no name comes from it."""
    texts = [*HOSTILE, "../../etc/passwd", "\x00", "x" * 100_000, "<script>alert(1)</script>"]
    jobs = [succeeded(f"j{n}", metadata={"caption": text}) for n, text in enumerate(texts)]
    write_run(tmp_path / "run", jobs, content=b"x")

    done = runner(
        "export", tmp_path / "run", tmp_path / "out", "--format", dataset_format, "--captions", "txt"
    )

    assert 0 == done.exit_code, done.stderr
    found = files_of(tmp_path / "out")
    if dataset_format == "webdataset":
        with tarfile.open(tmp_path / "out/data/train/000000.tar") as tar:
            found = {info.name: file.read() for info in tar if (file := tar.extractfile(info))}
    captions = [content for name, content in found.items() if name.endswith(".txt")]
    assert sorted(text.encode("utf-8", "replace") for text in texts) == sorted(captions)
    assert {"run", "out"} == {path.name for path in tmp_path.iterdir()}


def test_results_of_several_runs(tmp_path: Path, export: Export) -> None:
    """Jobs of two runs that have the same id and other requests are two videos."""
    write_run(tmp_path / "run", [succeeded("a")], run="one")
    write_run(tmp_path / "run", [succeeded("a", request={"prompt": "B"})], run="two", append=True)

    assert 0 == export().exit_code
    table = pq.read_table(next((tmp_path / "out" / "data").iterdir()))
    assert ["A kitten looks up", "B"] == table["prompt"].to_pylist()
    assert 2 == len({video["path"] for video in table["video"].to_pylist()})


def test_the_video_of_the_present_request() -> None:
    """A video that an older request made has that request in its row, and is used only if there is no other."""
    old = Asset(AssetKind.VIDEO, "assets/old.mp4", 1, "b" * 64, "video/mp4", request={"prompt": "old"})
    both = replace(succeeded(), assets=(old, VIDEO))
    only_old = replace(succeeded(), assets=(old,))

    assert VIDEO == video_of(both)
    assert old == video_of(only_old)
    assert "old" == make_row(only_old, old, run="r", is_only_run=True).values["prompt"]


@pytest.mark.parametrize(
    ("request_seed", "seed"),
    [(7, 7), (2**63 - 1, 2**63 - 1), (2**63, None), (True, None), ("7", None), (1.5, None)],
)
def test_a_seed_is_a_whole_number_of_64_bits(request_seed: object, seed: int | None) -> None:
    """What the column can't hold is null there, and stays in the request."""
    row = make_row(succeeded(request={"seed": request_seed}), VIDEO, run="r", is_only_run=True)

    assert seed == row.values["seed"]
    assert {"seed": request_seed} == json.loads(str(row.values["request"]))


@pytest.mark.parametrize(
    ("path", "suffix"),
    [("a.MP4", ".mp4"), ("a.webm", ".webm"), ("a", ".mp4"), ("a.*", ".mp4"), ("a.猫", ".mp4")],
)
def test_suffixes_of_videos(path: str, suffix: str) -> None:
    """A suffix is taken from the file if it can be in a pattern and in any library."""
    row = make_row(succeeded(), replace(VIDEO, path=path), run="r", is_only_run=True)

    assert suffix == row.suffix


@pytest.mark.parametrize(
    ("dataset_format", "size", "message"),
    [("parquet", 2**31 - 1, "has 2 GiB or more"), ("webdataset", 2**33, "has 8 GiB or more")],
)
def test_a_video_that_the_format_can_not_hold(
    tmp_path: Path, dataset_format: str, size: int, message: str
) -> None:
    """It is refused before anything is copied, with what to use instead."""
    run = write_run(tmp_path / "run", [succeeded("a")], content=b"x")
    with (run / "assets" / "a.mp4").open("r+b") as file:
        file.truncate(size)
    results = run / "results.jsonl"
    results.write_text(results.read_text().replace('"bytes":1,', f'"bytes":{size},'))

    result = runner("export", run, tmp_path / "out", "--format", dataset_format)

    refused(tmp_path, result, message)
    assert "videofolder" in result.stderr


@pytest.mark.slow
def test_a_run_directory(tmp_path: Path) -> None:
    """A simulated run is exported from its run.db, by its directory or its results, and the card says what it is."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "version: 1\nname: demo\njobs:\n  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: kitten}}\n"
    )
    assert 0 == runner("run", manifest, "--simulate", "-q", "-o", tmp_path / "run").exit_code

    for number, name in enumerate(("run", "run/results.jsonl")):
        out = tmp_path / f"out{number}"
        assert 0 == runner("export", tmp_path / name, out, "--format", "parquet").exit_code
        assert ["a"] == exported(out)
        assert "Videos of a simulated run" in (out / "README.md").read_text()
