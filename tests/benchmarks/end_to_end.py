"""Whole runs beside the floor and the peers: jobs a second, CPU, memory, megabytes a second."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import count
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.rig import Gateway, Row, Taken, ratio

HERE = Path(__file__).parent
SMALL_BYTES, LARGE_BYTES = 10_240, 2_000_000
_numbers = count()


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to; its rate counts from the first POST to the end of the process."""

    per_s: float
    cpu_ms: float
    peak_mib: float


def figures(taken: Taken, server: Gateway, jobs: int, folder: Path) -> Figures:
    """Check a run at the gateway and in its folder, and say what it came to."""
    stats = server.check(jobs, folder)
    return Figures(
        jobs / (taken.ended_at - stats["first_post_at"]), taken.cpu_s / jobs * 1000, taken.peak_mib
    )


def floor(
    server: Gateway,
    jobs: int,
    at_once: int,
    folder: Path,
    script: str = "floor.py",
    *,
    on_one_cpu: bool = True,
    durable: bool = False,
) -> Figures:
    """Run the bare loop, or a peer that takes the same arguments, into a fresh folder."""
    out = folder / f"{script}-{next(_numbers)}"
    options = ["durable"] if durable else []
    taken = rig.run(
        [HERE / script, server.url, str(jobs), str(at_once), out, *options], on_one_cpu=on_one_cpu
    )
    return figures(taken, server, jobs, out)


def runner(
    server: Gateway,
    jobs: int,
    at_once: int,
    disk: Path,
    assets: Path | None = None,
    dearer_ms: float = 0,
    *,
    on_one_cpu: bool = True,
) -> Figures:
    """Run the program into a fresh run directory on the disk; its assets may lie elsewhere."""
    out = disk / f"run-{next(_numbers)}"
    if assets is not None:
        elsewhere = assets / out.name
        elsewhere.mkdir(parents=True)
        out.mkdir(parents=True)
        (out / "assets").symlink_to(elsewhere, target_is_directory=True)
    manifest = rig.manifest(rig_folder(disk), server.url, jobs, at_once=at_once)
    entrance = ["-m", "tests.benchmarks.slow_sync", str(dearer_ms)] if dearer_ms else ["-m", "runner"]
    taken = rig.run([*entrance, "run", manifest, "--new", "-o", out], on_one_cpu=on_one_cpu)
    return figures(taken, server, jobs, assets / out.name if assets is not None else out)


def rig_folder(disk: Path) -> Path:
    """Give the folder of the manifests."""
    folder = disk / "manifests"
    folder.mkdir(exist_ok=True)
    return folder


def _pairs(
    rounds: int, peer: Callable[[], Figures], own: Callable[[], Figures]
) -> list[tuple[Figures, Figures]]:
    """Run a floor or peer and the program in turn."""
    bare, ours = rig.in_turn(rounds, lambda _: peer(), lambda _: own())
    return list(zip(bare, ours, strict=True))


def _rates(pairs: list[tuple[Figures, Figures]], *, digits: int = 2) -> str:
    """Give the program's rate over the other's."""
    return ratio([own.per_s / peer.per_s for peer, own in pairs], digits=digits)


def small(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """10 KB assets: the rows that gate the speed of the program's own work."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    with rig.gateway(asset) as server:
        for at_once, must, aim in ((64, "0.60", "0.75"), (256, "0.65", "0.80")):
            pairs = _pairs(
                rounds,
                partial(floor, server, jobs, at_once, memory),
                partial(runner, server, jobs, at_once, disk, memory),
            )
            note = f"{pairs[0][1].per_s:.0f} of {pairs[0][0].per_s:.0f} jobs/s"
            yield Row(
                f"jobs/s, {jobs:,} jobs of 10 KB, {at_once} at once",
                "bare aiohttp loop",
                must,
                aim,
                _rates(pairs),
                note,
            )
            if at_once == 64:
                yield from _cpu_and_memory(pairs)


def _cpu_and_memory(pairs: list[tuple[Figures, Figures]]) -> Iterator[Row]:
    bare, own = pairs[-1]
    yield Row(
        "CPU per job",
        "bare aiohttp loop",
        "1.7x",
        "1.4x",
        ratio([own.cpu_ms / bare.cpu_ms for bare, own in pairs]),
        f"{own.cpu_ms:.2f} beside {bare.cpu_ms:.2f} ms, whole processes",
    )
    yield Row(
        "peak memory of that run",
        "bare aiohttp loop",
        "2.0x",
        "1.6x",
        ratio([own.peak_mib / bare.peak_mib for bare, own in pairs]),
        f"{own.peak_mib:.0f} beside {bare.peak_mib:.0f} MiB",
    )


def dear_sync(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """The same on a machine whose every commit takes 5 ms longer; the loop commits nothing."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    with rig.gateway(asset) as server:
        pairs = _pairs(
            rounds,
            partial(floor, server, jobs, 64, memory),
            partial(runner, server, jobs, 64, disk, memory, dearer_ms=5),
        )
    yield Row(
        "jobs/s with every commit 5 ms dearer, 64 at once",
        "bare loop without that",
        "0.45",
        "0.60",
        _rates(pairs),
        "a wrapper around the writer's commit sleeps 5 ms",
    )


def synced_assets(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Assets on the disk, made durable before their jobs are called succeeded."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    with rig.gateway(asset) as server:
        pairs = _pairs(
            rounds, partial(floor, server, jobs, 64, disk), partial(runner, server, jobs, 64, disk)
        )
    yield Row(
        "jobs/s with each asset synced before its job succeeds",
        "bare loop, same disk, no sync",
        "0.45",
        "0.70",
        _rates(pairs),
        f"{pairs[0][1].per_s:.0f} of {pairs[0][0].per_s:.0f} jobs/s",
    )


def sdk(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """The openai SDK, as its documentation shows it."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    try:
        # Not imported here: what this process has counts as the peak of the processes that it starts.
        version = metadata.version("openai")
    except metadata.PackageNotFoundError:
        yield Row(
            "jobs/s", "openai SDK: create, poll, download", "5x", "8x", "not reached: openai is not installed"
        )
        return
    few = max(jobs // 10, 200)
    with rig.gateway(asset) as server:
        pairs = _pairs(
            rounds,
            partial(floor, server, few, 64, memory, "sdk.py"),
            partial(runner, server, jobs, 64, disk, memory),
        )
    yield Row(
        "jobs/s",
        "openai SDK: create, poll, download",
        "5x",
        "8x",
        _rates(pairs, digits=1),
        f"{pairs[0][1].per_s:.0f} beside {pairs[0][0].per_s:.0f} jobs/s, openai {version}",
    )


def large(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """2 MB assets in memory: megabytes a second, and how memory grows with the size of assets."""
    few = max(jobs // 10, 100)
    peak_mib = yield from _megabytes(disk, memory, size=LARGE_BYTES, files=few, at_once=64, rounds=rounds)
    with rig.gateway(rig.video_file(memory / "small.mp4", SMALL_BYTES)) as server:
        base_mib = runner(server, few, 64, disk, memory).peak_mib
    yield Row(
        "peak memory with 2 MB assets",
        "itself with 10 KB assets",
        "1.8x",
        "1.5x",
        f"{peak_mib / base_mib:.2f}",
        f"{peak_mib:.0f} beside {base_mib:.0f} MiB, {few} jobs",
    )


def medium(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """20 MB assets, 16 at once."""
    few = max(jobs // 100, 32)
    yield from _megabytes(disk, memory, size=20_000_000, files=few, at_once=16, rounds=rounds)


def huge(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """200 MB assets, four at once."""
    few = 8 if jobs > 5000 else 4
    yield from _megabytes(disk, memory, size=200_000_000, files=few, at_once=4, rounds=rounds, must="0.80")


def _megabytes(
    disk: Path, memory: Path, *, size: int, files: int, at_once: int, rounds: int, must: str = "0.85"
) -> Generator[Row, None, float]:
    """
    Compare rates of large assets: on all CPUs, since threads write and take the digest, and on one.

    Returns:
        The most memory that the program held, in MiB.
    """
    asset = rig.video_file(memory / "large.mp4", size)
    bare, durable, own, peer, on_one = [], [], [], [], []
    peak_mib = 0.0
    with rig.gateway(asset) as server:
        for _ in range(rounds):
            bare.append(floor(server, files, at_once, memory, on_one_cpu=False).per_s)
            _empty(memory)
            durable.append(floor(server, files, at_once, memory, on_one_cpu=False, durable=True).per_s)
            _empty(memory)
            figures = runner(server, files, at_once, disk, memory, on_one_cpu=False)
            own.append(figures.per_s)
            _empty(memory)
            on_one.append(runner(server, files, at_once, disk, memory).per_s)
            _empty(memory)
            peer.append(aria2c(server, files, memory, size, at_once))
            _empty(memory)
            peak_mib = max(peak_mib, figures.peak_mib)
    mib = size / 2**20
    yield Row(
        f"MB/s end to end, {files} assets of {size // 1_000_000} MB, {at_once} at once",
        "aiohttp loop with SHA-256 and fdatasync",
        must,
        "0.90",
        ratio([a / b for a, b in zip(own, durable, strict=True)]),
        f"{own[0] * mib:.0f} of {durable[0] * mib:.0f} MiB/s; peak {peak_mib:.0f} MiB",
    )
    for what, rates, against, others in (
        ("the same with all its threads on one CPU", on_one, "the same", durable),
        ("the same on all CPUs", own, "bare aiohttp loop, which takes no digest", bare),
    ):
        yield Row(what, against, "-", "-", ratio([a / b for a, b in zip(rates, others, strict=True)]))
    if all(peer):
        yield Row(
            "the same on all CPUs, its POSTs and polls included",
            f"aria2c -j{at_once}, downloads alone, no digest",
            "1.0",
            "1.1",
            ratio([a / b for a, b in zip(own, peer, strict=True)]),
            f"{peer[0] * mib:.0f} MiB/s",
        )
    return peak_mib


def aria2c(server: Gateway, files: int, memory: Path, size: int, at_once: int) -> float:
    """Download as many files with aria2c; files a second, or 0 where it is not installed."""
    if shutil.which("aria2c") is None:
        return 0.0
    out = memory / f"aria2c-{next(_numbers)}"
    out.mkdir()
    wishes = out / "wishes.txt"
    wishes.write_text("".join(f"{server.url}/a/task_{n}\n  out={n}.mp4\n" for n in range(files)))
    words: list[str | Path] = [
        "aria2c",
        "-q",
        "-i",
        wishes,
        f"-j{at_once}",
        "-d",
        out,
        "--file-allocation=none",
    ]
    taken = rig.other([*words, "--console-log-level=error"])
    whole = sum(path.stat().st_size == size for path in out.glob("*.mp4"))
    server.stats()
    if whole != files:
        raise rig.Wrong(f"aria2c brought {whole} of {files} files")
    return files / taken.wall_s


def _empty(memory: Path) -> None:
    """Give the memory of the files back; this is not a disk, so nothing is slower for it."""
    for path in memory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
