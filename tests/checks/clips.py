"""Clips with known faults, made by ffmpeg; and good ones of the simulator."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from runner.core.model import Asset, AssetKind
from runner.media import read_mp4
from runner.simulator.video import video, video_spec

SECONDS = 4
MOVING = ["-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=24:duration={SECONDS}"]
ZOOM = ["-f", "lavfi", "-t", str(SECONDS), "-i", "mandelbrot=size=320x180:rate=24"]
COLOR = ["-f", "lavfi", "-i", f"color={{}}:size=320x180:rate=24:duration={SECONDS}"]
SOUND = ["-f", "lavfi", "-i", f"sine=duration={SECONDS}"]
SILENCE = ["-f", "lavfi", "-t", str(SECONDS), "-i", "anullsrc"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]

CLIPS: dict[str, list[str]] = {
    "good": [*MOVING, *SOUND, *H264],
    "other": [*ZOOM, *H264],
    "black": [*(part.format("black") for part in COLOR), *SOUND, *H264],
    "black with noise": [*(part.format("black") for part in COLOR), "-vf", "noise=alls=8:allf=t", *H264],
    "frozen": [*MOVING, *SOUND, "-vf", "trim=end_frame=1,loop=95:1:0,setpts=N/24/TB", *H264],
    "frozen at the end": [
        *MOVING,
        *SOUND,
        "-vf",
        "hue=h=180,trim=0:1.5,tpad=stop_mode=clone:stop_duration=2.5",
        *H264,
    ],
    "without sound": [*MOVING, "-vf", "hflip", *H264],
    "silent": [*MOVING, *SILENCE, "-vf", "vflip", *H264],
    "cut": [*MOVING, *SOUND, "-vf", "hflip,vflip", "-t", "1.5", *H264],
    "small": [*MOVING, *SOUND, "-vf", "transpose=1,scale=90:160", *H264],
    "five frames a second": [*ZOOM, *SOUND, "-vf", "hflip", "-r", "5", *H264],
    "smaller copy": [*ZOOM, "-vf", "scale=240:136", "-crf", "32", *H264],
}
"""By name, what ffmpeg makes of it: all with a sound unless the name says otherwise."""


def make_clip(name: str, path: Path) -> None:
    """Write a clip."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *CLIPS[name], path], check=True, timeout=60)


def write_simulated(path: Path, name: str, size: str = "480p", seconds: int = SECONDS) -> dict[str, object]:
    """Write the simulator's video of a request, and return the request."""
    request = {"model": "seedance-1-5-pro-251215", "prompt": name, "size": size, "seconds": str(seconds)}
    path.write_bytes(video(video_spec(request, hashlib.sha256(name.encode()).hexdigest()))[:])
    return dict(request)


def read_asset(path: Path) -> Asset:
    """Return what a download would know of a file."""
    data = path.read_bytes()
    with path.open("rb") as file:
        info = read_mp4(file, len(data))
    return Asset(
        AssetKind.VIDEO,
        path.name,
        len(data),
        hashlib.sha256(data).hexdigest(),
        info.media_type,
        info.width,
        info.height,
        info.duration_s,
        codec=info.codec,
        fps=info.fps,
        has_sound=info.has_sound,
    )
