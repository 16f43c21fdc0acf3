"""Posters are the first pictures of videos, and no video, however damaged, stops the report."""

from __future__ import annotations

import base64
import io
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runner.api.report import PosterMaker
from runner.core.lifecycle import State
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner
from tests.report.browser import Browser

av = pytest.importorskip("av", reason="needs the extra media")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tall video that is red first, then blue."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to make a video")
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    source = "color=red:size=360x640:rate=5:duration=1[a];color=blue:size=360x640:rate=5:duration=1[b];[a][b]concat"
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-filter_complex", source, "-pix_fmt", "yuv420p", str(path)],
        check=True,
    )
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run/assets").mkdir(parents=True)
    return tmp_path / "run"


def test_poster_is_the_first_picture(run_dir: Path, clip: Path) -> None:
    """It is a small JPEG of the beginning, in the shape of the video."""
    shutil.copy(clip, run_dir / "assets/a.mp4")

    posters = PosterMaker(run_dir).posters(["assets/a.mp4"])

    jpeg = base64.b64decode(posters["assets/a.mp4"])
    with av.open(io.BytesIO(jpeg), format="jpeg_pipe") as container:
        picture = next(container.decode(video=0))
    red, green, blue = (picture.reformat(format="gbrp").planes[plane] for plane in (2, 0, 1))
    assert (180, 320) == (picture.width, picture.height)
    assert bytes(red)[1000] > 200
    assert max(bytes(green)[1000], bytes(blue)[1000]) < 60
    assert len(jpeg) < 10_000


def test_what_is_not_a_video_has_no_poster(run_dir: Path, clip: Path) -> None:
    """A damaged file, a link out of the run, and lists of other files have none; no host is asked."""
    shutil.copy(clip, run_dir / "assets/good.mp4")
    (run_dir / "assets/damaged.mp4").write_bytes(clip.read_bytes()[:300])
    (run_dir / "assets/link.mp4").symlink_to(clip)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        playlist = f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{server.getsockname()[1]}/a.ts\n"
        (run_dir / "assets/playlist.mp4").write_text(playlist)
        (run_dir / "assets/list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
        names = (
            "list.mp4",
            "damaged.mp4",
            "link.mp4",
            "playlist.mp4",
            "missing.mp4",
            "../../x.mp4",
            "good.mp4",
        )

        posters = PosterMaker(run_dir).posters([f"assets/{name}" for name in names])

        assert ["assets/good.mp4"] == list(posters)
        with pytest.raises(BlockingIOError):
            server.accept()


DECODER = """
import json, os, sys, time
for line in sys.stdin:
    name = os.path.basename(json.loads(line))
    if name == "crashes.mp4":
        os.abort()
    if name == "hangs.mp4":
        time.sleep(60)
    print(json.dumps("poster of " + name + str("SECRET_KEY" in os.environ)), flush=True)
"""


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their posters; a video is tried once, and the decoder gets no keys."""
    monkeypatch.setenv("SECRET_KEY", "x")
    names = ["crashes.mp4", "a.mp4", "hangs.mp4", "b.mp4"]
    for name in names:
        (run_dir / "assets" / name).write_bytes(b"")
    maker = PosterMaker(run_dir, program=(sys.executable, "-c", DECODER), limit_of_one_s=4.0)

    posters = maker.posters([f"assets/{name}" for name in names])

    assert {"assets/a.mp4": "poster of a.mp4False", "assets/b.mp4": "poster of b.mp4False"} == posters
    (run_dir / "assets/a.mp4").unlink()
    assert posters == maker.posters([f"assets/{name}" for name in names])


@pytest.fixture
def reported(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Report a run with a video and a file that is none."""
    monkeypatch.chdir(tmp_path)
    states = {"a": State.SUCCEEDED, "b": State.SUCCEEDED}
    run_dir = make_run(tmp_path / "out", write_manifest(tmp_path / "m.yaml", *states), states)
    shutil.copy(clip, run_dir / "assets/a.mp4")

    assert 0 == runner("report", run_dir).exit_code
    return run_dir / "report.html"


def test_the_report_has_posters(reported: Path) -> None:
    """`runner report` puts them into the page."""
    (posters,) = re.findall(r'"posters":\{"assets/a.mp4":"([^"]+)"\}', reported.read_text())
    assert b"\xff\xd8" == base64.b64decode(posters)[:2]


@pytest.mark.extended
def test_posters_are_shown(chromium: Browser, reported: Path) -> None:
    """A clip with a poster shows it, and its video is not read until it is played."""
    chromium.open(reported)
    assert ["data:image/jpeg;base64,", "none", ["assets/a.mp4"]] == chromium.run(
        "const video = document.querySelector('.card video');"
        "return [video.poster.slice(0, 23), video.preload, Object.keys(DATA.posters)]"
    )
