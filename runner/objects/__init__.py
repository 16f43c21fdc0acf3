"""
Object stores: one interface over S3, Google Cloud Storage, Azure and a folder, and objects by their URLs.

After the upload of a file, the store is asked whether it has arrived.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from runner.errors import ObjectStoreError, UsageError
from runner.objects.base import FolderStore, ObjectMissing, ObjectStore
from runner.objects.cloud import open_cloud_store

CLOUD_SCHEMES = ("s3", "gs", "az")
REQUEST_S = 60.0


def url_of_path(path: Path) -> str | None:
    """
    Return the URL that was taken for a path, as the arguments of commands are; None if it is a path.

    >>> url_of_path(Path("s3://bucket/run")), url_of_path(Path("file:///srv/run")), url_of_path(Path("output/run"))
    ('s3://bucket/run', 'file:///srv/run', None)
    """
    scheme, _, rest = path.as_posix().partition(":/")
    if scheme not in (*CLOUD_SCHEMES, "file") or not rest:
        return None
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"


def open_store(
    url: str, environ: Mapping[str, str] = os.environ, *, request_s: float = REQUEST_S
) -> ObjectStore:
    """
    Return the store at a URL. Nothing is read or written.

    Args:
        url: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX`` or ``file:///FOLDER``. Credentials
            and endpoints of the first three are in the variables ``AWS_*``, ``GOOGLE_*`` and ``AZURE_*``.
        environ: The environment, such as one that an ``.env`` file completes.
        request_s: How long one request may take.

    Raises:
        UsageError: It is not such a URL, or the extra for it is not installed.
        ObjectStoreError: What the environment says does not fit together.
    """
    forms = "use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageError("the URL of the object store can't be read", hint=forms) from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        # It is not shown: it may hold a key.
        raise UsageError(
            "the URL of an object store has no user, no query and no fragment",
            hint="put keys into environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FolderStore(unquote(parts.path))
    if parts.scheme in CLOUD_SCHEMES and parts.netloc:
        return open_cloud_store(url.rstrip("/"), environ, request_s)
    raise UsageError(f"{url} is not the URL of an object store", hint=forms)


UPLOAD_REQUEST_S = 300.0
"""A part of a large file has 8 MB, and several may share a slow line."""


class Content(NamedTuple):
    """What an object must hold: its length, and its SHA-256 in hex."""

    size: int
    sha256: str


class Objects:
    """
    Objects in any stores by their URLs. Each store is opened once; to be used from one thread at a time.

    Args:
        environ: The environment, for credentials.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._stores: dict[str, ObjectStore] = {}

    def at(self, url: str) -> tuple[ObjectStore, str]:
        """
        Return the store of an object, and its name there.

        Raises:
            UsageError: It is not the URL of an object, or the extra for it is not installed.
            ObjectStoreError: What the environment says does not fit together.
        """
        scheme, _, rest = url.partition("://")
        # Of a bucket one store is enough; a folder is nothing that is opened.
        root, _, name = rest.rpartition("/") if scheme == "file" else rest.partition("/")
        name = unquote(name) if scheme == "file" else name
        # It may be of a foreign file.
        if any(not segment or segment.startswith(".") for segment in name.split("/")):
            raise UsageError("the URL of an object names no object", hint="it is SCHEME://BUCKET/NAME")
        root = f"{scheme}://{root}"
        if root not in self._stores:
            self._stores[root] = open_store(root, self._environ)
        return self._stores[root], name

    def holds(self, url: str, content: Content, *, is_read: bool = False) -> bool:
        """
        Return whether an object is there as it was uploaded.

        Args:
            is_read: Whether its bytes are read if the store does not keep its digest.

        Raises:
            UsageError, ObjectStoreError: As for `at`, or the store can't be used.
        """
        store, name = self.at(url)
        return _holds(store, name, content, is_read=is_read)


def upload(store: ObjectStore, name: str, source: Path, content: Content, content_type: str) -> str:
    """
    Upload a file, check that it has arrived, and return the URL of the object.

    Raises:
        ObjectStoreError: It has not, or nobody knows.
        OSError: The file can't be read.
    """
    store.put(name, source, content_type=content_type, metadata={"sha256": content.sha256})
    url = object_url(store, name)
    if not _holds(store, name, content):
        raise ObjectStoreError(
            f"{url} is not what was uploaded", hint="check whether something else writes there"
        )
    return url


def object_url(store: ObjectStore, name: str) -> str:
    """
    Return the URL of an object. Names in buckets are not percent-encoded, as other tools expect.

    >>> from runner.objects.base import FolderStore
    >>> object_url(FolderStore("/srv/videos"), "a b.mp4")
    'file:///srv/videos/a%20b.mp4'
    """
    return f"{store.url}/{quote(name) if store.url.startswith('file:') else name}"


def require_uploads(store: ObjectStore) -> None:
    """
    Check that objects can be written and found, with a probe that is deleted again if that is permitted.

    Raises:
        ObjectStoreError: They can't, so that nothing should be paid for.
    """
    name, data = f"probe-{uuid4().hex}", b"written by runner to see whether it can upload; it may be deleted"
    content = Content(len(data), sha256(data).hexdigest())
    store.put(name, data, metadata={"sha256": content.sha256})
    if not _holds(store, name, content):
        raise ObjectStoreError(
            f"{store.url} does not have what was just written to it",
            hint="use another store for --assets",
        )
    with suppress(ObjectStoreError):
        store.delete(name)


def _holds(store: ObjectStore, name: str, content: Content, *, is_read: bool = False) -> bool:
    try:
        found = store.head(name)
        if found.size != content.size:
            return False
        if found.sha256 is not None or not is_read:
            return found.sha256 in (None, content.sha256)
        digest = sha256()
        for part in store.read(name):
            digest.update(part)
    except ObjectMissing:
        return False
    return digest.hexdigest() == content.sha256
