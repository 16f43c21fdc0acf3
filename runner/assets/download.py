"""What a download carries from one try to the next."""

from __future__ import annotations

from collections.abc import Callable

from runner.assets.part_file import PartFile, file_size
from runner.assets.request import AssetRequest, PartMetadata, part_path
from runner.assets.response import OVERLAP_BYTES, RangeRequest, Restart, RetryLater
from runner.core.model import Failure, FailureClass

SaveMetadata = Callable[[PartMetadata], None]


class Download:
    """
    What `Fetcher` carries from one try to the next.

    Attributes:
        must_restart: Whether the part on disk turned out to belong to another file.
        shown_url: The URL requested last, for messages, without its query.
    """

    __slots__ = ("metadata", "must_restart", "part", "request", "save_metadata", "shown_url")

    def __init__(self, request: AssetRequest, save_metadata: SaveMetadata) -> None:
        self.request = request
        self.save_metadata = save_metadata
        path = part_path(request.path)
        self.part = PartFile(path, file_size(path)) if request.metadata is not None else PartFile(path)
        self.metadata = request.metadata or PartMetadata()
        self.must_restart = False
        self.shown_url = "the part file"

    @property
    def may_be_complete(self) -> bool:
        """Whether an earlier process died between the last byte and the final name."""
        return 0 < self.part.size == self.metadata.total_bytes

    def next_range(self) -> RangeRequest:
        """Return what to request: the rest and an overlap, or all if there is too little to resume."""
        size, total = self.part.size, self.metadata.total_bytes
        is_too_long = total is not None and size > total
        if self.must_restart or is_too_long or size <= OVERLAP_BYTES:
            return RangeRequest()
        return RangeRequest(size - OVERLAP_BYTES, self.metadata)

    def update_metadata(self, metadata: PartMetadata) -> None:
        """Take what a response says of the whole file, and save it if it is new."""
        if metadata != self.metadata or not self.part.size:
            self.metadata = metadata
            self.save_metadata(metadata)

    def check_length(self) -> RetryLater | Restart | None:
        """Return what to do if the file does not have its declared length after a body; None if it has."""
        size, total = self.part.size, self.metadata.total_bytes
        if not self.part.is_overlap_complete or (total is not None and size > total):
            return Restart()
        if total is not None and size < total:
            message = f"{self.shown_url} sent {size} of {total} bytes"
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))
        return None
