"""Records for tests: some by hand, and strategies for any record."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Failure, FailureClass, JobRecord
from runner.core.problem import Position

AT = 1_795_226_401.25
HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><!--",
    "\x1b[31mred\x1b[0m\x00\x07",
    "\u202egnp.exe\u2066",
    '"]}]]>&quot;\u2028\u2029',
    "${HOME} {{ 7*7 }} {% raw %} no: 16:9\n- yes",
    "小猫🐈 הנה חתול",
    "| a | `b` | [c](javascript:d) @e **f** www.example.com https://example.com",
    "x" * 1_000_000,
)
VIDEO = Asset(AssetKind.VIDEO, "assets/sky.mp4", 1_048_576, "a" * 64, "video/mp4", 1920, 1080, 5.0)


def succeeded(job_id: str = "sky", **changes: Any) -> JobRecord:
    """Create a job that succeeded at its first attempt."""
    record = JobRecord(
        job_id=job_id,
        index=0,
        model="wan2.7-i2v",
        schema="wan2.7-i2v",
        request={"model": "wan2.7-i2v", "prompt": "A kitten looks up", "seconds": "5"},
        digest="",
        metadata={"caption": "小猫"},
        state=State.SUCCEEDED,
        task_id="task_x",
        remote_status="completed",
        submitted_at=AT,
        finished_at=AT + 98.77,
        generate_s=93.1,
        download_s=2.4,
        polls=7,
        attempts=(Attempt(1, AT, "accepted", "task_x", 200),),
        assets=(VIDEO,),
    )
    return replace(record, **changes)


def unsuccessful(
    job_id: str, state: State, cls: FailureClass, message: str = "no", **changes: Any
) -> JobRecord:
    """Create a job that ended in another state."""
    failure = Failure(cls, message, "some_code", 400, "req_1")
    without_assets: dict[str, Any] = {"assets": (), "generate_s": None, "download_s": None}
    return replace(succeeded(job_id), **{**without_assets, "state": state, "error": failure, **changes})


# Surrogates have no UTF-8, so no file can have them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
# Numbers in the results are to the millisecond.
seconds = st.integers(0, 10**8).map(lambda ms: ms / 1000)
times = st.integers(0, 4 * 10**12).map(lambda ms: ms / 1000)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts
json_objects = st.dictionaries(
    texts,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_size=4,
)
failures = st.builds(
    Failure,
    cls=st.sampled_from(FailureClass),
    message=texts,
    code=st.none() | texts,
    http_status=st.none() | st.integers(100, 599),
    request_id=st.none() | texts,
)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 99),
    submitted_at=times,
    outcome=st.sampled_from(
        [
            "accepted",
            "rejected",
            "throttled",
            "no_channel",
            "refused",
            "not_sent",
            "uncertain",
            "attached",
            "pending",
        ]
    ),
    task_id=st.none() | texts,
    http_status=st.none() | st.integers(100, 599),
    error=st.none() | failures,
)
assets = st.builds(
    Asset,
    kind=st.sampled_from(AssetKind),
    path=st.just("assets/sky.mp4"),
    bytes=st.integers(1, 2**40),
    sha256=st.just("0" * 64),
    content_type=names,
    width=st.none() | st.integers(1, 9999),
    height=st.none() | st.integers(1, 9999),
    duration_s=st.none() | seconds,
)
records = st.builds(
    JobRecord,
    job_id=names,
    index=st.integers(0, 10**6),
    model=names,
    schema=texts,
    request=json_objects,
    digest=st.just(""),
    metadata=json_objects,
    state=st.sampled_from(State),
    timeout_s=st.none() | seconds,
    task_id=st.none() | texts,
    remote_status=st.none() | texts,
    submitted_at=st.none() | times,
    completed_at=st.none() | times,
    finished_at=st.none() | times,
    generate_s=st.none() | seconds,
    download_s=st.none() | seconds,
    polls=st.integers(0, 10**6),
    attempts=st.lists(attempts, max_size=3).map(tuple),
    assets=st.lists(assets, min_size=1, max_size=2).map(tuple),
    warnings=st.lists(texts, max_size=2).map(tuple),
    error=st.none() | failures,
    source=st.just(Position("")),
    is_gone=st.just(False),
)
