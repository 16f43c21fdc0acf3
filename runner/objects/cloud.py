"""S3, Google Cloud Storage and Azure by obstore, and its errors as the program's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from runner.errors import ObjectStoreError, UsageError, install_hint
from runner.objects.base import ObjectExists, ObjectInfo, ObjectMissing

if TYPE_CHECKING:
    from obstore.store import ClientConfig, MemoryStore, ObjectStore, RetryConfig

PART_BYTES = 8 << 20
"""A larger file is uploaded in parts of this length, `_PARTS_AT_ONCE` at a time."""
_PARTS_AT_ONCE = 4
_PASSED = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BASE_URL",
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_ENDPOINT",
    ),
}
"""What of an environment is passed on; obstore itself reads more names, but only of the process's own environment."""
_ENDPOINTS = ("aws_endpoint_url_s3", "aws_endpoint_url", "google_base_url", "azure_storage_endpoint")
"""Other servers than the service's own; the first that is set is used."""
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for other servers than Amazon's, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_DENIED_CODES = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
    | {"AuthorizationHeaderMalformed", "AuthenticationFailed", "RequestTimeTooSkewed", "TokenRefreshRequired"}
)
_CONFIGURATION = ("must be specified", "Missing", "Invalid", "Unable to open", "Unable to decode")
_CREDENTIALS_REQUEST = re.compile(r"performing \w+ http://(169\.254\.|metadata\.google\.internal)")
"""Asked of the machine's own cloud where the environment has no keys."""


def open_cloud_store(url: str, environ: Mapping[str, str], request_s: float) -> CloudStore:
    """
    Return the store at the URL of a bucket or of a folder in it.

    Args:
        request_s: How long one request may take, that of a part of a large file too.

    Raises:
        UsageError: The extra is not installed.
        ObjectStoreError: What the environment says does not fit together.
    """
    try:
        from obstore import store as stores
        from obstore.exceptions import BaseError
    except ImportError:
        raise UsageError(
            f"{url} needs obstore, which is not installed",
            hint=f"{install_hint('cloud')}; or use file:///FOLDER",
        ) from None
    scheme = urlsplit(url).scheme
    config: dict[str, Any] = {name.lower(): environ[name] for name in _PASSED[scheme] if environ.get(name)}
    endpoint = next((config[name] for name in _ENDPOINTS if name in config), "")
    if scheme == "s3":
        config["checksum_algorithm"] = "SHA256"
    # Few and short tries of its own: whoever needs more, such as the journal, repeats the whole request.
    retries: RetryConfig = {
        "max_retries": 3,
        "retry_timeout": timedelta(seconds=20),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }
    client: ClientConfig = {
        "connect_timeout": "5s",
        "timeout": timedelta(seconds=request_s),
        "allow_http": endpoint.startswith("http://"),
    }
    try:
        from_url: Any = stores.from_url
        store = from_url(url, config=config, client_options=client, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise _as_own(error, url) from None
    return CloudStore(store, url)


class CloudStore:
    """A store that obstore can use. Its memory store serves tests."""

    def __init__(self, store: ObjectStore | MemoryStore, url: str) -> None:
        import obstore

        self._obstore = obstore
        self._store = store
        self._url = url

    @property
    def url(self) -> str:
        """The URL of the bucket, or of the folder in it."""
        return self._url

    def create(self, name: str, data: bytes) -> None:
        """Create an object, if there is none of that name, by one conditional request."""
        with self._errors(name, is_write=True):
            self._obstore.put(self._store, name, data, mode="create")

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object in place of one of that name, in parts if it is large."""
        if isinstance(source, Path):
            # Otherwise an object that can't be read would look like one that is missing.
            source.open("rb").close()
        attributes = {**(metadata or {}), **({"Content-Type": content_type} if content_type else {})}
        with self._errors(name, is_write=True):
            self._obstore.put(
                self._store,
                name,
                source,
                attributes=attributes,
                chunk_size=PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""
        with self._errors(name):
            return bytes(self._obstore.get(self._store, name).bytes())

    def read(self, name: str) -> Iterator[bytes]:
        """Yield an object's bytes in parts."""
        with self._errors(name):
            for part in self._obstore.get(self._store, name).stream(min_chunk_size=1 << 20):
                yield bytes(part)

    def head(self, name: str) -> ObjectInfo:
        """Return an object's length and digest, by a request without its bytes."""
        with self._errors(name):
            found = self._obstore.get(self._store, name, options={"head": True})
            return ObjectInfo(name, found.meta["size"], found.attributes.get("sha256"))

    def list(self, folder: str = "", *, after: str | None = None) -> list[ObjectInfo]:
        """List the objects below a folder, by name."""
        with self._errors(folder):
            pages = self._obstore.list(self._store, folder or None, offset=after, chunk_size=1000)
            return sorted(ObjectInfo(found["path"], found["size"]) for page in pages for found in page)

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        try:
            with self._errors(name):
                self._obstore.delete(self._store, name)
        except ObjectMissing:
            return

    def presign(self, name: str, expires_s: float) -> str:
        """Return a URL from which anybody can read an object for a time."""
        if self._url.startswith("az:") and quote(path := f"{self._url}/{name}"[len("az:") :]) != path:
            # obstore signs the encoded name, and Azure compares that with the name itself: nobody could read it.
            raise UsageError(
                f"{self._url} can't sign the web address of {name}",
                hint="in Azure, use names of ASCII letters, digits and ._-~ for folders",
            )
        with self._errors(name):
            try:
                return self._obstore.sign(self._store, "GET", name, timedelta(seconds=expires_s))  # type: ignore[call-overload, no-any-return]
            except (TypeError, ValueError):
                raise UsageError(f"{self._url} can't sign web addresses of its objects") from None

    @contextmanager
    def _errors(self, name: str, *, is_write: bool = False) -> Iterator[None]:
        """Raise what obstore raised as what this project knows. What a write does not find is the bucket."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            # Which of the two it is depends on the service and on the version of the library.
            raise ObjectExists(name) from None
        except FileNotFoundError as error:
            if is_write or "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise _no_bucket(self._url) from None
            raise ObjectMissing(name) from None
        except BaseError as error:
            raise _as_own(error, self._url) from None


def _no_bucket(url: str) -> ObjectStoreError:
    return ObjectStoreError(
        f"the bucket of {url} does not exist",
        hint=f"create it, or check its name and {_VARIABLES[urlsplit(url).scheme]}",
    )


def _as_own(error: Exception, url: str) -> ObjectStoreError:
    """Describe an error without its text, which can hold signed URLs."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    scheme = urlsplit(url).scheme
    found = re.search(r"<Code>(\w{1,64})</Code>", text)
    code = found.group(1) if found else ""
    status = re.search(r"status code: (\d{3}[ \w]{0,40})", text)
    said = ", ".join(filter(None, [code, status.group(1).strip() if status else ""]))
    if _CREDENTIALS_REQUEST.search(text):
        return ObjectStoreError(f"there are no credentials for {url}", hint=f"set {_VARIABLES[scheme]}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in _DENIED_CODES:
        return ObjectStoreError(
            f"{url} refuses the credentials ({said or 'access denied'})",
            hint=f"check {_VARIABLES[scheme]}, and what they permit; then run the same command again",
        )
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return _no_bucket(url)
    if not status and any(words in text for words in _CONFIGURATION):
        return ObjectStoreError(
            f"{url} can't be used as it is configured", hint=f"check {_VARIABLES[scheme]}"
        )
    return ObjectStoreError(
        f"{url} can't be reached" if not said else f"{url} answered {said}",
        hint="check the network and the store, then run the same command again",
    )
