"""Fetch one asset in a process of its own, which a test may kill. Arguments: the URL, the folder, the metadata file."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from msgspec.structs import asdict

from runner.assets.request import Fetched, PartMetadata
from tests.assets.helpers import asset_request, fetcher


def load(path: Path) -> PartMetadata | None:
    return PartMetadata(**json.loads(path.read_text())) if path.exists() else None


async def main(url: str, folder: Path, metadata_path: Path) -> None:
    def save(metadata: PartMetadata) -> None:
        metadata_path.write_text(json.dumps(asdict(metadata)))

    async with fetcher() as fetch:
        result = await fetch.fetch(asset_request(url, folder, metadata=load(metadata_path)), save)
    print(result.sha256 if isinstance(result, Fetched) else result)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
