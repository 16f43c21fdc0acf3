"""A fetcher for tests: no real waits, no random draws, and a gateway on loopback unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from runner.assets.fetch import Fetcher
from runner.assets.request import AssetRequest, PartMetadata
from runner.core.model import AssetKind
from runner.core.settings import AssetRules, RetryPolicy, Timeouts

LOOPBACK_GATEWAY = "http://127.0.0.1:1"
KEY = "sk-test-4242"


class FakeSleep(list[float]):
    """Records how long it is to sleep, and returns at once."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def fetcher(base_url: str = LOOPBACK_GATEWAY, **changes: object) -> Fetcher:
    arguments: dict[str, object] = {
        "rules": AssetRules(max_bytes=10_000_000),
        "retry": RetryPolicy(attempts=3, base_s=2.0, cap_s=60.0),
        "timeouts": Timeouts(stall_s=0.15, connect_s=5.0),
        "sleep": FakeSleep(),
        "draw": lambda: 0.5,
        "clock": lambda: 1_700_000_000.0,
        "free_bytes": lambda folder: 10**12,
    }
    return Fetcher(base_url, **{**arguments, **changes})  # type: ignore[arg-type]


def asset_request(
    url: str,
    folder: Path,
    *,
    kind: AssetKind = AssetKind.VIDEO,
    key: str | None = KEY,
    metadata: PartMetadata | None = None,
) -> AssetRequest:
    return AssetRequest(url, f"{folder}/assets/sky.mp4", kind, key, metadata)
