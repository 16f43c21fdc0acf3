"""
Every exception that the program raises on purpose, and who must act on it.

RunnerError                 message: what happened and where; hint: what to do next
├── UsageError              the arguments of the command do not fit together
├── ManifestError           fix the manifest; nothing was submitted (carries the problems)
├── FileChanged             a local file is not the one that was checked; its job fails, and nothing was sent
├── CredentialsMissing      set the key; nothing was sent
├── RunDirError             the run directory can't be used as it is
│   ├── RunLocked           another process uses it
│   ├── StoreMissing        there are results but no run.db: rerun from the results instead
│   ├── StoreOutdated       run.db is older than the files beside it: continuing could pay twice
│   ├── StoreDamaged        run.db can't be read; it was left untouched
│   ├── StoreTooNew         run.db was written by a newer version
│   ├── Fenced              another process owns the shard now; the journal refuses this one
│   └── JobsChanged         jobs of the manifest differ from those that already ran
├── LedgerError             the ledger of a budget can't be used; nothing more is submitted
│   ├── LedgerLocked        another process holds it
│   ├── LedgerDamaged       it can't be read; it was left untouched
│   └── LedgerTooNew        it was written by a newer version
├── NotConfirmed            the user said no to the cost; nothing was sent
├── ResultsError            a results file that can't be read
├── ScenarioError           fix the simulator's scenario file
├── DiskFull                free some space; nothing that was paid for is lost
├── ObjectStoreError        an object store can't be reached, refuses the credentials, or has no such bucket
├── ClusterError            the processes of a cluster did not start; nothing was submitted
├── UploadError             local files can't be uploaded to the asset library
├── InputRefused            the asset library refused a local file; its jobs fail, and nothing was sent for them
├── ReportError             a report that can't be generated
└── ExportError             a dataset that can't be made; nothing is under its final name

A job that fails is a result, not an exception: its failure is saved in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    # Only the type: `runner --help` needs neither the core nor msgspec.
    from runner.core.problem import Problem


_MAX_NOTED = 10


def install_hint(extra: str) -> str:
    """Return how to install what an extra needs. Until the program is published, no package index has it."""
    return f"in the checkout that runner was installed from: pip install '.[{extra}]'"


class RunnerError(Exception):
    """
    Something that the user can act on.

    Attributes:
        reference: A stable name for this kind of error, shown as ``error[reference]``.
        exit_code: What the process exits with if nothing handles the error.
        message: One sentence that includes the values. Never a key, never a signed URL.
        hint: A command or an edit that helps, or None.
        problems: What is wrong with a file, each with its place.
    """

    reference: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)
        # A traceback shows them, as in a notebook.
        for problem in self.problems[:_MAX_NOTED]:
            self.add_note(str(problem))
        if hint is not None:
            self.add_note(f"hint: {hint}")


class UsageError(RunnerError):
    """The arguments do not fit together, or name something that does not exist."""

    reference = "usage"


class ManifestError(RunnerError):
    """The manifest can't be run as it is; nothing was submitted."""

    reference = "manifest-invalid"


class FileChanged(RunnerError):
    """A local file is no longer what was checked: it is missing, unreadable or has other content."""

    reference = "file-changed"


class CredentialsMissing(RunnerError):
    """No API key is set; nothing was sent."""

    reference = "no-key"


class RunDirError(RunnerError):
    """The run directory can't be used as it is."""

    reference = "run-dir"


class RunLocked(RunDirError):
    """Another process uses the run directory."""

    reference = "run-locked"
    exit_code = 5


class StoreMissing(RunDirError):
    """There are results but no ``run.db``: continuing could pay twice."""

    reference = "store-missing"


class StoreOutdated(RunDirError):
    """``run.db`` is older than the files beside it, or a copy of one in use: continuing could pay twice."""

    reference = "store-outdated"


class StoreDamaged(RunDirError):
    """``run.db`` can't be read; it was left as it is."""

    reference = "store-damaged"


class StoreTooNew(RunDirError):
    """``run.db`` was written by a newer version of the program."""

    reference = "store-too-new"


class Fenced(RunDirError):
    """Another process has taken over the shard, or it was merged; this one may submit nothing more."""

    reference = "fenced"
    exit_code = 3


class JobsChanged(RunDirError):
    """Jobs of the manifest differ from jobs with the same id that already ran."""

    reference = "jobs-changed"


class LedgerError(RunnerError):
    """The ledger of a budget can't be read or written; nothing was submitted without it."""

    reference = "ledger"
    exit_code = 3


class LedgerLocked(LedgerError):
    """Another process holds the ledger for too long."""

    reference = "ledger-locked"


class LedgerDamaged(LedgerError):
    """The ledger is not one, or can't be read; it was left as it is."""

    reference = "ledger-damaged"


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version of the program."""

    reference = "ledger-too-new"


class NotConfirmed(RunnerError):
    """The question whether to submit, and pay, was answered with no; nothing was sent."""

    reference = "not-confirmed"
    exit_code = 3


class ResultsError(RunnerError):
    """A results file can't be read."""

    reference = "results-unreadable"


class ScenarioError(RunnerError):
    """The simulator can't use a scenario file."""

    reference = "scenario-invalid"


class DiskFull(RunnerError):
    """There is no space left for the store or for an asset."""

    reference = "disk-full"
    exit_code = 3


class ObjectStoreError(RunnerError):
    """An object store can't be used now, as it is configured, or with these credentials."""

    reference = "object-store"
    exit_code = 3


class ClusterError(RunnerError):
    """The processes of a cluster did not start; nothing was submitted."""

    reference = "cluster"
    exit_code = 3


class UploadError(RunnerError):
    """Local files can't be uploaded to the asset library."""

    reference = "upload"
    exit_code = 3


class InputRefused(RunnerError):
    """The asset library refused a local file; its jobs fail, and nothing was sent for them."""

    reference = "input-refused"


class ReportError(RunnerError):
    """A report can't be generated."""

    reference = "report"


class ExportError(RunnerError):
    """A dataset can't be made from a run."""

    reference = "export"
