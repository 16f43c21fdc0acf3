"""Which shard a job is in, which shard a process is, and what its part of the limits is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.settings import Limits, ModelLimits
from runner.core.sharding import Shard, divide_limits, find_shard, parse_shard, share


def test_the_rule_never_changes() -> None:
    """The shards of runs that exist depend on these numbers."""
    assert [5, 9, 5, 4] == [share(job_id, 16) for job_id in ("sky", "grass-1", "Kätzchen", "")]


@settings(max_examples=30)
@given(st.text(), st.integers(1, 50))
def test_every_job_is_in_one_shard(job_id: str, count: int) -> None:
    """Of all shards of a run, exactly one has a job."""
    assert 1 == sum(Shard(index, count).has(job_id) for index in range(count))


def test_shards_are_of_nearly_one_size() -> None:
    """Ids in a row are spread evenly."""
    sizes = Counter(share(f"job-{n}", 16) for n in range(16_000))

    assert 850 < min(sizes.values()) <= max(sizes.values()) < 1150


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/3", "-1/3", "3/3", "1/0", "0/10001", "a/b", "1/2/3", "١/٢"]
)
def test_other_texts_are_not_shards(text: str) -> None:
    """An index that does not exist is refused, and so is anything else."""
    with pytest.raises(ValueError, match="shard"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({"JOB_COMPLETION_INDEX": "2", "RUNNER_SHARDS": "4"}, "2/4"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "4",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "4",
            },
            "3/4",
        ),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1", "RUNNER_SHARDS": "16"}, "7/16"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "3"}, "0/3"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, "1/2"),
        ({"SKYPILOT_NODE_RANK": "5", "SKYPILOT_NUM_NODES": "8"}, "5/8"),
    ],
)
def test_schedulers(environ: Mapping[str, str], shard: str) -> None:
    """Each scheduler's variables tell the shard; RUNNER_SHARDS comes before what the scheduler counts."""
    assert shard == str(find_shard(environ))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "no scheduler's variables are set"),
        ({"JOB_COMPLETION_INDEX": "2"}, "set RUNNER_SHARDS"),
        ({"JOB_COMPLETION_INDEX": "4", "RUNNER_SHARDS": "4"}, "JOB_COMPLETION_INDEX 4 is none of 4 shards"),
        ({"CLOUD_RUN_TASK_INDEX": "x", "CLOUD_RUN_TASK_COUNT": "3"}, "CLOUD_RUN_TASK_INDEX is 'x'"),
        ({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": ""}, "SKYPILOT_NUM_NODES is not set"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "2",
            },
            "the array has gaps",
        ),
    ],
)
def test_variables_that_do_not_tell_the_shard(environ: Mapping[str, str], message: str) -> None:
    """Nothing is guessed: another number of shards would pay twice."""
    with pytest.raises(ValueError, match=message):
        find_shard(environ)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 200))
def test_parts_are_the_whole(count: int, in_flight: int) -> None:
    """The parts of all shards are the limits of the run, and every shard has a task at least, or all are refused."""
    limits = Limits(
        submit_per_s=6.0, poll_per_s=3.0, in_flight=in_flight, models={"m": ModelLimits(in_flight=in_flight)}
    )
    shards = [Shard(index, count) for index in range(count)]
    if in_flight < count:
        for shard in shards:
            with pytest.raises(
                ValueError, match=f"limits.models.m.in_flight {in_flight} can't be shared by {count}"
            ):
                divide_limits(limits, shard)
        return
    parts = [divide_limits(limits, shard) for shard in shards]

    assert in_flight == sum(part.in_flight for part in parts)
    assert in_flight == sum(part.models["m"].in_flight or 0 for part in parts)
    assert parts[-1].in_flight >= 1
    assert 6.0 == pytest.approx(sum(part.submit_per_s for part in parts))
    assert {limits.downloads} == {part.downloads for part in parts}
