"""Check the video of one job after the other, with all that there is to check it with."""

from __future__ import annotations

from collections.abc import Callable, Collection

from runner.checks.duplicate_videos import NearDuplicates
from runner.checks.hook import AssetHook
from runner.checks.judge import NEEDS_DECODER, Findings, Measures, judge
from runner.checks.pool import MeasuringPool, NotMeasured
from runner.commands import CommandFailed
from runner.core.model import Asset, AssetKind, JobRecord, Json
from runner.core.settings import Check

Row = dict[str, Json]
"""What is kept of the checks of a job: ``checks``, ``warnings`` and ``verdict``."""


class VideoChecker:
    """
    Checks videos of one run.

    Args:
        pool: None if nothing can look at pictures here.
        hook: The user's own command, or None.
        job_id_of: Returns the id of a job by its key in the store.
    """

    def __init__(
        self,
        run_dir: str,
        checks: Collection[Check],
        reject: Collection[Check],
        *,
        pool: MeasuringPool | None,
        hook: AssetHook | None,
        job_id_of: Callable[[int], str],
    ) -> None:
        self._run_dir = run_dir
        self._checks = checks
        self._reject = reject
        self._pool = pool
        self._hook = hook
        self._job_id_of = job_id_of
        self._seen = NearDuplicates()

    @property
    def at_once(self) -> int:
        """How many checks of jobs make sense at the same time."""
        pool, hook = self._pool, self._hook
        return max(1, (0 if pool is None else pool.size) + (0 if hook is None else hook.at_once))

    def remember(self, seq: int, row: Row) -> None:
        """Take over the hash of a video that was checked before."""
        near = (row.get("checks") or {}).get(Check.NEAR_DUPLICATE) or {}
        if near.get("hash"):
            self._seen.add(near["hash"], seq)

    async def look(self, record: JobRecord) -> tuple[Findings, Measures | None]:
        """Return what is found of a job's video alone; it takes a while."""
        video = next(asset for asset in record.assets if asset.kind is AssetKind.VIDEO)
        findings, measures = Findings(), None
        if self._pool is not None and {*NEEDS_DECODER, Check.SILENT} & {*self._checks}:
            try:
                measures = await self._pool.measure(f"{self._run_dir}/{video.path}")
            except NotMeasured as error:
                findings.warnings.append(f"the video was not checked: it {error}")
        found = judge(video, record.request, self._checks, measures)
        findings.checks.update(found.checks)
        findings.warnings += found.warnings
        if self._hook is not None:
            await self._ask_hook(self._hook, record, findings)
        return findings, measures

    async def _ask_hook(self, hook: AssetHook, record: JobRecord, findings: Findings) -> None:
        for asset in record.assets:
            try:
                findings.checks |= await hook.ask(record, asset)
            except CommandFailed as error:
                findings.warnings.append(f"on_asset: {error}")

    def finish(self, seq: int, findings: Findings, measures: Measures | None) -> Row:
        """Compare a video with those before it, and return what is kept of its checks."""
        if Check.NEAR_DUPLICATE in self._checks and measures is not None:
            self._find_near(seq, findings, measures.picture_hash)
        return {
            "checks": findings.checks,
            "warnings": findings.warnings,
            "verdict": findings.verdict(self._reject),
        }

    def _find_near(self, seq: int, findings: Findings, picture_hash: str | None) -> None:
        near = None if picture_hash is None else self._seen.add(picture_hash, seq)
        job_id = None if near is None else self._job_id_of(near[0])
        problem = None if job_id is None else f"the video looks like that of {job_id!r}"
        findings.add(
            Check.NEAR_DUPLICATE,
            problem,
            of=job_id,
            bits=None if near is None else near[1],
            hash=picture_hash,
        )


def has_video(assets: Collection[Asset]) -> bool:
    """Return whether there is a video to check."""
    return any(asset.kind is AssetKind.VIDEO for asset in assets)
