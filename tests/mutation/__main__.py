"""
Count the mutants that the tests kill, and name those that survive.

Each mutant lives in a copy of the project. It meets the tests of its own package, of the
contracts and of the engine; what survives those meets the tests of whole runs. A mutant
that makes tests hang, or take up all memory, is killed too.

    python -m tests.mutation --package worker
    python -m tests.mutation --package store --kind removed --kind sql --out survivors.jsonl
    python -m tests.mutation --at runner/worker/poll.py:57
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

from tests.mutation.mutants import KINDS, Mutant, mutants

ROOT = Path(__file__).parents[2]
NEAR = {
    "core": ("core", "contract", "engine"),
    "worker": ("worker", "contract", "engine"),
    "store": ("store", "contract", "engine"),
    # The engine's tests have fakes in their place.
    "assets": ("assets", "contract"),
}
"""The folders of tests that should notice a mutant of each package, the likeliest first."""

FAR = ("acceptance",)

_MOST_MEMORY_KB = 4 << 20
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What became of a mutant.

    Attributes:
        killer: The test that failed, or how else it was noticed; None for a survivor.
    """

    mutant: Mutant
    killer: str | None
    took_s: float


class Copy:
    """A copy of the project, for one mutant at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in _names_of_files():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
        # By default compiled code is told apart by time and size, which two mutants may share.
        compile_dir(folder / "runner", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """Put a fault in, for the length of a block."""
        module = self._folder / mutant.path
        source = module.read_bytes()
        module.write_bytes(mutant.apply(source))
        try:
            yield
        finally:
            module.write_bytes(source)

    def killer(self, tests: Sequence[str], within_s: float) -> str | None:
        """Run tests up to the first that fails, and return its name or another sign of failure, if there is one."""
        # Not inside: what is below the working directory is printed by its relative path.
        scratch = self._folder.with_name(f"{self._folder.name}-scratch")
        scratch.mkdir()
        limit = f'ulimit -v {_MOST_MEMORY_KB}; exec "$@"'
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environ = {**os.environ, "PYTHONPATH": str(self._folder), "TMPDIR": str(scratch)}
        with subprocess.Popen(
            ["sh", "-c", limit, "sh", *words],
            cwd=self._folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                return f"took more than {within_s:.0f} s"
            finally:
                # Whatever the tests have started goes with them.
                _kill_session(process.pid)
                shutil.rmtree(scratch, ignore_errors=True)
        if process.returncode == 0:
            return None
        found = _FAILED.search(output)
        return found[1] if found else f"pytest ended with {process.returncode}"


def _kill_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _names_of_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


class Judge:
    """Judges mutants, each against the tests that should know of it."""

    def __init__(self, copies: SimpleQueue[Copy], far: Sequence[str]) -> None:
        self._copies = copies
        self._far = _folders(far)
        self._within_s: dict[tuple[str, ...], float] = {}

    def measure(self, packages: Sequence[str]) -> None:
        """
        Run the tests without any fault, which gives the time that they may take with one.

        Raises:
            SystemExit: They fail as it is.
        """
        copy = self._copies.get()
        for tests in {_near(package) for package in packages} | {self._far}:
            began = time.monotonic()
            if tests and (killer := copy.killer(tests, within_s=1800)):
                raise SystemExit(f"the tests fail without any mutant: {killer}")
            self._within_s[tests] = 20 + 4 * (time.monotonic() - began)
        self._copies.put(copy)

    def judge(self, mutant: Mutant) -> Verdict:
        """Let a mutant meet its tests."""
        began = time.monotonic()
        killer = None
        copy = self._copies.get()
        try:
            with copy.mutated(mutant):
                for tests in (_near(_package(mutant)), self._far):
                    # The module's own examples come with the tests near to it.
                    own = (mutant.path,) if tests != self._far else ()
                    killer = killer or (copy.killer((*own, *tests), self._within_s[tests]) if tests else None)
        finally:
            self._copies.put(copy)
        return Verdict(mutant, killer, time.monotonic() - began)


def _near(package: str) -> tuple[str, ...]:
    return _folders(NEAR[package])


def _folders(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"tests/{name}" for name in names)


def _package(mutant: Mutant) -> str:
    return Path(mutant.path).parts[1]


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """Return the mutants that were asked for: of each package at most `limit`, drawn by a seed."""
    dice = random.Random(arguments.seed)
    found: list[Mutant] = []
    for package in arguments.package or NEAR:
        paths = sorted((ROOT / "runner" / package).glob("*.py"))
        everything = [
            mutant
            for path in paths
            for mutant in mutants(str(path.relative_to(ROOT)), path.read_bytes())
            if mutant.kind in (arguments.kind or KINDS)
            and (arguments.at is None or f"{mutant.path}:{mutant.line}".startswith(arguments.at))
        ]
        limit = len(everything) if arguments.limit is None else min(arguments.limit, len(everything))
        found += dice.sample(everything, limit)
    return found


def report(verdicts: Sequence[Verdict], tell: Callable[[str], None]) -> None:
    """Tell the score of each package, and the survivors."""
    total = Counter(_package(verdict.mutant) for verdict in verdicts)
    killed = Counter(_package(verdict.mutant) for verdict in verdicts if verdict.killer)
    for package, count in total.items():
        tell(f"{package:8} {killed[package]:5} of {count:5} killed, {killed[package] / count:.0%}")
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.mutant.path, verdict.mutant.line)):
        if verdict.killer is None:
            tell(f"survived {verdict.mutant}")


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--package", action="append", choices=NEAR, help="default: all four")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--at", metavar="PATH[:LINE]", help="only mutants whose place begins so")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N of each package")
    parser.add_argument("--seed", type=int, default=1, help="another draw of mutants (default: 1)")
    parser.add_argument(
        "--near", action="store_true", help="without the tests of whole runs, for a quick look"
    )
    parser.add_argument(
        "--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="mutants at a time"
    )
    parser.add_argument("--out", type=Path, help="append each verdict to this file, as a line of JSON")
    arguments = parser.parse_args()
    wanted = chosen(arguments)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(Copy(Path(folder, str(number))))
        judge = Judge(copies, () if arguments.near else FAR)
        judge.measure(sorted({_package(mutant) for mutant in wanted}))
        verdicts = []
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for verdict in pool.map(judge.judge, wanted):
                verdicts.append(verdict)
                fate = "SURVIVED" if verdict.killer is None else "killed"
                print(
                    f"{len(verdicts)}/{len(wanted)} {fate} {verdict.took_s:.1f} s  {verdict.mutant}",
                    flush=True,
                )
                if arguments.out is not None:
                    with arguments.out.open("a", encoding="utf-8") as file:
                        print(json.dumps(asdict(verdict)), file=file)
    report(verdicts, print)


if __name__ == "__main__":
    _main()
