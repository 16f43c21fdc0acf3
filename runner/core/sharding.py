"""
The shards of a run: which jobs each has, and its part of the limits; and samples of jobs, by their ids too.

The number of shards of a run, N, never changes: with another N a job would be in another shard, and be paid for again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b, sha256
from heapq import heappush, heappushpop
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from runner.core.money import Money, from_nanos, to_nanos
from runner.core.settings import Budget, Limits, ModelLimits

SHARE_RULE = "blake2b8"
"""Names how `share` divides jobs, for whoever reads a journal or a run directory later."""
MAX_SHARDS = 10_000
SHARD_FORMS = "I/N, with I from 0 to N - 1, such as 0/16, or auto"
COUNT_NAME = "RUNNER_SHARDS"
"""The variable that has N where the scheduler does not give it, or gives only how many tasks it starts this time."""

_SLURM = "SLURM_ARRAY_TASK_ID"
_SCHEDULERS = (
    ("JOB_COMPLETION_INDEX", None),
    (_SLURM, "SLURM_ARRAY_TASK_COUNT"),
    ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
)
"""The variables in which schedulers put a task's index and how many there are: Kubernetes first, Slurm, and so on."""


class Shard(Struct, frozen=True):
    """
    One shard of a run.

    Attributes:
        index: From 0.
        count: How many shards the run has.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, job_id: str) -> bool:
        """Return whether a job belongs to the shard."""
        return share(job_id, self.count) == self.index


def share(job_id: str, count: int) -> int:
    """
    Return the index of the shard that a job belongs to. It depends on nothing else than its id.

    >>> share("sky", 16)
    5
    """
    return int.from_bytes(blake2b(job_id.encode(), digest_size=8).digest(), "big") % count


def parse_shard(text: str) -> Shard:
    """
    Parse a shard.

    >>> parse_shard("3/16")
    Shard(index=3, count=16)

    Raises:
        ValueError: The text is not that of a shard.
    """
    index, slash, count = text.partition("/")
    if not slash or not all(_is_number(part) for part in (index, count)):
        raise ValueError(f"{text!r} is not a shard; write {SHARD_FORMS}")
    return _checked(int(index), int(count), f"{text!r}")


def find_shard(environ: Mapping[str, str]) -> Shard:
    """
    Find the shard that a scheduler gave to this process, by the variables that it sets.

    `COUNT_NAME` comes before what the scheduler says: when only some tasks of an array are started again, it counts those.

    >>> find_shard({"JOB_COMPLETION_INDEX": "3", "RUNNER_SHARDS": "16"})
    Shard(index=3, count=16)
    >>> find_shard({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "8",
    ...             "SLURM_ARRAY_TASK_COUNT": "8"})
    Shard(index=3, count=8)

    Raises:
        ValueError: No scheduler's variables are set, or they do not name the shard.
    """
    for index_name, count_name in _SCHEDULERS:
        if index_name not in environ:
            continue
        index = _number(environ, index_name)
        if environ.get(COUNT_NAME):
            return _checked(index, _number(environ, COUNT_NAME), f"{index_name} {index}")
        if count_name is None or count_name not in environ:
            raise ValueError(f"{index_name} is set, but not how many shards there are: set {COUNT_NAME}")
        count = _number(environ, count_name)
        if index_name == _SLURM:
            first, last = (_number(environ, f"SLURM_ARRAY_TASK_{end}") for end in ("MIN", "MAX"))
            if last - first != count - 1:
                raise ValueError(
                    f"the array has gaps, so that its tasks are not shards: set {COUNT_NAME}, and use --array=0-(N-1)"
                )
            index -= first
        return _checked(index, count, f"{index_name} {index}")
    raise ValueError(f"no scheduler's variables are set: {', '.join(name for name, _ in _SCHEDULERS)}")


def divide_budget(budget: Budget, shard: Shard) -> Budget:
    """
    Return a shard's part of a run's budget; all parts together are at most the whole.

    >>> from runner.core.money import parse_money
    >>> str(divide_budget(Budget(run=parse_money("10 USD")), Shard(0, 3)).run)
    '3.333333333 USD'
    """
    if budget.run is None:
        return budget
    part = from_nanos(to_nanos(budget.run.amount) // shard.count)
    return replace(budget, run=Money(part, budget.run.currency))


def divide_limits(limits: Limits, shard: Shard) -> Limits:
    """
    Return a shard's part of the limits of a run; all parts together are the whole. Downloads are a process's own.

    >>> [divide_limits(Limits(in_flight=8), Shard(index, 3)).in_flight for index in range(3)]
    [3, 3, 2]

    Raises:
        ValueError: A limit of tasks is smaller than the number of shards; the message says which.
    """
    models = {
        model: ModelLimits(
            in_flight=None
            if own.in_flight is None
            else _part(own.in_flight, shard, f"limits.models.{model}.in_flight"),
            submit_per_s=None if own.submit_per_s is None else own.submit_per_s / shard.count,
        )
        for model, own in limits.models.items()
    }
    return replace(
        limits,
        submit_per_s=limits.submit_per_s / shard.count,
        poll_per_s=limits.poll_per_s / shard.count,
        in_flight=_part(limits.in_flight, shard, "limits.in_flight"),
        models=models,
    )


def _part(whole: int, shard: Shard, name: str) -> int:
    each, left = divmod(whole, shard.count)
    if each == 0:
        raise ValueError(f"{name} {whole} can't be shared by {shard.count} shards")
    return each + (shard.index < left)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "").strip()
    if not _is_number(text):
        raise ValueError(f"{name} is {text!r}, not a number" if text else f"{name} is not set")
    return int(text)


def _checked(index: int, count: int, what: str) -> Shard:
    if not 1 <= count <= MAX_SHARDS:
        raise ValueError(f"{what}: a run has 1 to {MAX_SHARDS:,} shards, not {count}")
    if index >= count:
        raise ValueError(f"{what} is none of {count} shards: they are counted from 0 to {count - 1}")
    return Shard(index, count)


Item = TypeVar("Item")


class Sample(Generic[Item]):
    """
    Keeps a number of items, chosen by the digests of their ids: of two samples, the smaller one is part of the larger.

    >>> sample = Sample[int](2)
    >>> for number in range(100):
    ...     sample.add(f"job-{number}", number)
    >>> list(sample)
    [1, 25]
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._added = 0
        # The largest digest first, which is the first to go; the order of adding makes every entry different.
        self._heap: list[tuple[int, int, Item]] = []

    def add(self, job_id: str, item: Item) -> None:
        """Offer an item; it is kept as long as few enough ids have a smaller digest."""
        order = -int.from_bytes(sha256(job_id.encode("utf-8", "surrogatepass")).digest())
        self._added += 1
        entry = (order, self._added, item)
        if len(self._heap) < self._size:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the items that are kept, in the order in which they were added."""
        return (item for _, _, item in sorted(self._heap, key=lambda entry: entry[1]))
