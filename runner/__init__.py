"""
A batch runner for paid, asynchronous video generation APIs that never pays twice.

What the command line does with manifests and runs, for programs. Here a manifest is checked, run against the
simulator (leave `simulate` out for the real gateway), and its results are read:

>>> import asyncio, tempfile, runner
>>> checked = runner.check("manifests/seedance-1.yaml")
>>> print(checked)
no errors, no warnings in 1 job
>>> options, folder = runner.RunOptions(simulate=True), tempfile.mkdtemp()
>>> done = runner.run("manifests/seedance-1.yaml", output=folder, options=options)
>>> done.exit_code, done.counts[runner.State.SUCCEEDED]
(0, 1)
>>> for result in runner.read_results(folder):
...     print(result.record.job_id, [asset.path for asset in result.record.assets])
running ['assets/running.mp4']

A second run finds nothing to do, and pays for nothing:

>>> runner.run("manifests/seedance-1.yaml", output=folder, options=options).did_nothing
True
>>> runner.plan("manifests/seedance-1.yaml", output=folder, options=options).done
1

Jobs can come from the program itself, as mappings of a manifest's form:

>>> prompts = ["A kitten", "A puppy"]
>>> jobs = ({"request": {"model": "seedance-1-0-pro-250528", "prompt": prompt}} for prompt in prompts)
>>> runner.run(jobs=jobs, name="pets", output=tempfile.mkdtemp(), options=options).exit_code
0

Asynchronous code and notebooks await `run_async`, or get the events as they happen:

>>> async def watch(folder):
...     async with runner.follow("manifests/wan-kf2v.yaml", output=folder, options=options) as events:
...         async for event in events:
...             if isinstance(event, runner.JobEnded):
...                 print(event.job_id, event.state, [path.name for path in event.paths])
...     return events.result.exit_code
>>> asyncio.run(watch(tempfile.mkdtemp()))
looking-up succeeded ['looking-up.mp4']
0

What goes wrong with a job is in its result. If a run can't begin, that is a `RunnerError` with a
``message`` and a ``hint``.

Importing this module is cheap: each name is loaded when it is first used.
"""

from __future__ import annotations

# Type checkers know this name. Importing `typing` here takes milliseconds, in which Ctrl-C would print a traceback.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from runner.api.blocking import follow as follow
    from runner.api.blocking import read_results as read_results
    from runner.api.blocking import rerun as rerun
    from runner.api.blocking import rerun_async as rerun_async
    from runner.api.blocking import resume as resume
    from runner.api.blocking import resume_async as resume_async
    from runner.api.blocking import run as run
    from runner.api.blocking import run_async as run_async
    from runner.api.doctor import doctor as doctor
    from runner.api.models import model as model
    from runner.api.models import models as models
    from runner.api.options import IfLocked as IfLocked
    from runner.api.options import RunOptions as RunOptions
    from runner.api.plan import Plan as Plan
    from runner.api.plan import plan as plan
    from runner.api.resolve import Resolution as Resolution
    from runner.api.resolve import resolve_as as resolve_as
    from runner.api.resolve import resolve_tasks as resolve_tasks
    from runner.api.resolve import uncertain_jobs as uncertain_jobs
    from runner.api.run_result import RunResult as RunResult
    from runner.api.status import Status as Status
    from runner.api.status import status as status
    from runner.api.validate import Validation as Validation
    from runner.api.validate import check as check
    from runner.core.lifecycle import State as State
    from runner.core.model import FailureClass as FailureClass
    from runner.core.model import OnChanged as OnChanged
    from runner.core.stop import StopReason as StopReason
    from runner.engine.events import JobEnded as JobEnded
    from runner.engine.events import Notice as Notice
    from runner.errors import CredentialsMissing as CredentialsMissing
    from runner.errors import DiskFull as DiskFull
    from runner.errors import JobsChanged as JobsChanged
    from runner.errors import ManifestError as ManifestError
    from runner.errors import ResultsError as ResultsError
    from runner.errors import RunDirError as RunDirError
    from runner.errors import RunLocked as RunLocked
    from runner.errors import RunnerError as RunnerError
    from runner.errors import StoreMissing as StoreMissing
    from runner.errors import UsageError as UsageError
    from runner.store.transitions import Selection as Selection

_NAMES = {
    "runner.api.validate": ("Validation", "check"),
    "runner.api.doctor": ("doctor",),
    "runner.api.options": ("IfLocked", "RunOptions"),
    "runner.api.models": ("model", "models"),
    "runner.api.plan": ("Plan", "plan"),
    "runner.api.blocking": (
        "follow",
        "read_results",
        "rerun",
        "rerun_async",
        "resume",
        "resume_async",
        "run",
        "run_async",
    ),
    "runner.api.resolve": ("Resolution", "resolve_as", "resolve_tasks", "uncertain_jobs"),
    "runner.api.status": ("Status", "status"),
    "runner.api.run_result": ("RunResult",),
    "runner.core.lifecycle": ("State",),
    "runner.core.model": ("FailureClass", "OnChanged"),
    "runner.core.stop": ("StopReason",),
    "runner.engine.events": ("JobEnded", "Notice"),
    "runner.errors": (
        "CredentialsMissing",
        "DiskFull",
        "JobsChanged",
        "ManifestError",
        "ResultsError",
        "RunDirError",
        "RunLocked",
        "RunnerError",
        "StoreMissing",
        "UsageError",
    ),
    "runner.store.transitions": ("Selection",),
}
"""The public names, by the modules that they are loaded from."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
