"""Assets in an object store: uploaded from their files, and looked at there before they count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import TypeVar

from msgspec.structs import replace

from runner.core.filenames import object_name
from runner.core.model import Asset
from runner.core.retry import retry_wait_s
from runner.core.settings import RetryPolicy
from runner.core.units import format_duration
from runner.deadline import Deadline
from runner.errors import ObjectStoreError
from runner.objects.base import ObjectStore
from runner.objects.located import Content, Objects, upload

_T = TypeVar("_T")


class Uploader:
    """
    Uploads assets, each from a thread of its own. The caller limits how many at once.

    Args:
        environ: The environment, for the credentials of stores that earlier processes uploaded to.
        retry: How often an upload is tried.
        limit_s: How long one upload may take, with all its tries and pauses.
        sleep: Waits between two tries.
        draw: A random draw from [0, 1).
    """

    def __init__(
        self,
        store: ObjectStore,
        environ: Mapping[str, str],
        *,
        retry: RetryPolicy,
        limit_s: float,
        sleep: Callable[[float], Awaitable[None]],
        draw: Callable[[], float],
    ) -> None:
        self._store = store
        self._environ = environ
        self._retry = retry
        self._limit_s = limit_s
        self._sleep = sleep
        self._draw = draw

    async def upload(self, path: str, asset: Asset) -> Asset:
        """
        Upload a complete, verified file, and return its asset with its URL once the object is there, whole.

        What is there under the name is replaced: that has the digest in it, so it is half an upload or the same content.

        Raises:
            ObjectStoreError: It could not be uploaded. The file is as it was.
        """
        name, attempt = object_name(asset.path, asset.sha256), 0
        try:
            with Deadline(self._limit_s):
                while True:
                    attempt += 1
                    try:
                        url = await _in_thread(
                            lambda: upload(self._store, name, Path(path), _content(asset), asset.content_type)
                        )
                        return replace(asset, url=url)
                    except ObjectStoreError as error:
                        wait_s = retry_wait_s(self._retry, attempt=attempt, draw=self._draw())
                        if wait_s is None:
                            raise ObjectStoreError(
                                f"{asset.path} can't be uploaded: {error.message}", hint=error.hint
                            ) from None
                    await self._sleep(wait_s)
        except TimeoutError:
            raise ObjectStoreError(
                f"{asset.path} was not uploaded to {self._store.url} within {format_duration(self._limit_s)} (timeouts.download)",
                hint="check the network and the store, then run the same command again",
            ) from None

    async def has(self, asset: Asset) -> bool:
        """
        Return whether an asset that was uploaded is still there.

        Raises:
            ObjectStoreError: The store can't be used.
        """
        return await _in_thread(lambda: is_uploaded(Objects(self._environ), asset))


def is_uploaded(objects: Objects, asset: Asset, *, is_read: bool = False) -> bool:
    """
    Return whether an asset is in an object store, by its length and the digest that is kept there.

    Args:
        is_read: Whether its bytes are read if the store does not keep its digest.

    Raises:
        UsageError, ObjectStoreError: The store can't be used.
    """
    return asset.url is not None and objects.holds(asset.url, _content(asset), is_read=is_read)


def _content(asset: Asset) -> Content:
    return Content(asset.bytes, asset.sha256)


async def _in_thread(function: Callable[[], _T]) -> _T:
    """Run a function in a daemon thread: a request that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        try:
            result, failure = function(), None
        except BaseException as error:
            result, failure = None, error
        try:
            loop.call_soon_threadsafe(finish, result, failure)
        except RuntimeError:
            # The run has ended, and its loop with it.
            return

    Thread(target=work, name="asset-upload", daemon=True).start()
    return await done
