"""Object stores: one interface over S3, Google Cloud Storage, Azure and a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runner.errors import UsageError
from runner.objects.base import FolderStore, ObjectStore
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
        UsageError: It is no such URL, or the extra for it is not installed.
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
