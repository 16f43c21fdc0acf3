"""Fetch one asset in a process of its own, which a test may kill. Arguments: the address, the folder, facts as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from msgspec.structs import asdict

from runner.assets.request import Fetched, PartMetadata
from tests.assets.helpers import fetcher, wish


def recall(store: Path) -> PartMetadata | None:
    return PartMetadata(**json.loads(store.read_text())) if store.exists() else None


async def main(url: str, folder: Path, store: Path) -> None:
    def remember(facts: PartMetadata) -> None:
        store.write_text(json.dumps(asdict(facts)))

    async with fetcher() as fetch:
        result = await fetch.fetch(wish(url, folder, known=recall(store)), remember)
    print(result.sha256 if isinstance(result, Fetched) else result)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
