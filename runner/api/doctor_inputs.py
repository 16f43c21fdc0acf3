"""Check that local files can be uploaded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from runner.core.settings import Inputs, Timeouts
from runner.gateway.library import LibraryClient
from runner.gateway.urls import gateway_root
from runner.objects import open_store
from runner.proxies import Proxies

_OBJECT = "runner-doctor.txt"


def try_inputs(
    inputs: Inputs, base_url: str, key: str, environ: Mapping[str, str], timeouts: Timeouts
) -> None:
    """
    Write a small object and delete it again, or ask the asset library for its groups.

    Raises:
        RunnerError: Files can't be uploaded, or would have no address.
    """
    if inputs.is_library:
        asyncio.run(_ask_library(gateway_root(base_url), key, environ, timeouts))
        return
    store = open_store(inputs.upload, environ)
    store.put(_OBJECT, b"runner doctor\n", content_type="text/plain")
    if inputs.public_url is None:
        store.presign(_OBJECT, inputs.expires_s)
    store.delete(_OBJECT)


async def _ask_library(root: str, key: str, environ: Mapping[str, str], timeouts: Timeouts) -> None:
    proxy = Proxies.from_environ(environ).for_url(root)
    async with LibraryClient(root, key, timeouts, sleep=asyncio.sleep, proxy=proxy) as library:
        await library.groups()
