"""The ledger: every POST that was accepted, and so paid for, and what else the simulator was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from msgspec import Struct, field
from msgspec.structs import asdict

from runner import jsontext
from runner.core.model import Json
from runner.errors import UsageError

By = Literal["digest", "model", "prompt", "label", "key", "task_id"]


class LedgerEntry(Struct, frozen=True):
    """
    An accepted POST.

    Attributes:
        digest: Of the request: sha256 of its JSON with sorted keys, in hex.
        label: What the scenario's `job_label` found in the prompt, or None.
        key: Fingerprint of the key that paid.
        at: Seconds since 1970.
        asked: What the request says of the picture.
        number: Of the job, from 1.
        rule: Of the scenario's rules, the one that the job plays; None for none.
        generate_s: How long the video takes.
    """

    digest: str
    model: str
    prompt: str
    label: str | None
    key: str
    task_id: str
    at: float
    asked: Mapping[str, Json]
    number: int
    rule: int | None
    generate_s: float


class Ledger(Struct):
    """
    What happened since the start; of POSTs, with a file, since the file was begun.

    Attributes:
        requests: By route, such as ``POST /v1/videos``; the answer's status does not matter.
        polls: Queries by task id.
        bytes_served: By asset, such as ``task_x/video.mp4``.
        faults: Faults played, by place and name, such as ``submit reset``.
        asset_requests_with_key: Requests to the asset origins that carried an Authorization header; none ever should.
        stray_posts: POSTs that followed a redirect to another origin; none ever should.
    """

    accepted: list[LedgerEntry] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    polls: Counter[str] = field(default_factory=Counter)
    bytes_served: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    asset_requests_with_key: int = 0
    stray_posts: int = 0
    _file: BinaryIO | None = None

    def open(self, path: Path) -> None:
        """
        Take up a file's entries, and append to it from now on; a torn last line is dropped.

        Raises:
            UsageError: The file is something else; it was left as it is.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        whole = text.rfind(b"\n") + 1
        try:
            self.accepted = [LedgerEntry(**jsontext.loads(line)) for line in text[:whole].splitlines()]
        except (ValueError, TypeError):
            raise UsageError(f"{path} is not a ledger of the simulator", hint="name a new file") from None
        # Unbuffered: a line is with the operating system before its POST is answered.
        self._file = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def record(self, entry: LedgerEntry) -> None:
        """Enter an accepted POST."""
        self.accepted.append(entry)
        if self._file:
            self._file.write(jsontext.dumps(asdict(entry)) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        if self._file:
            self._file.close()
            self._file = None

    def counter(self, asset: str) -> Callable[[int], None]:
        """Return what an asset's sent bytes are told to."""

        def count(size: int) -> None:
            self.bytes_served[asset] += size

        return count

    def count_by(self, what: By) -> Counter[str | None]:
        """Count accepted POSTs: by ``digest``, none may be above the number of jobs with that request."""
        return Counter(getattr(entry, what) for entry in self.accepted)

    def as_json(self) -> dict[str, Any]:
        """Return all of it, as ``GET /simulator/ledger`` shows it."""
        return {
            "accepted": [asdict(entry) for entry in self.accepted],
            "requests": dict(self.requests),
            "polls": dict(self.polls),
            "bytes_served": dict(self.bytes_served),
            "faults": dict(self.faults),
            "asset_requests_with_key": self.asset_requests_with_key,
            "stray_posts": self.stray_posts,
        }
