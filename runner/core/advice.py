"""What a person should do about a failure, by class, for the terminal, the report and the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.model import FailureClass

_ADVICE: Mapping[FailureClass, str] = {
    FailureClass.INVALID_REQUEST: (
        "The request was refused, by its check or by the API, and nothing was charged. Correct the job in the manifest "
        "and run it again; if the API refused it, with `--on-changed rerun`."
    ),
    FailureClass.AUTH: (
        "The API did not accept the key, and nothing was charged. Check the key with `runner doctor`, then "
        "`runner resume` the run."
    ),
    FailureClass.QUOTA: (
        "The account is out of credit, and nothing was charged. Top it up, then `runner resume` the run."
    ),
    FailureClass.FORBIDDEN: (
        "The key may not use this model or this service. Request access or choose another model, then `runner rerun`."
    ),
    FailureClass.RATE_LIMITED: (
        "The API kept answering that there were too many requests. Lower `limits.submit` or `limits.in_flight`, "
        "then `runner rerun`."
    ),
    FailureClass.UNAVAILABLE: (
        "The service or the network was down during every attempt, and nothing was charged. `runner rerun` when it "
        "is back."
    ),
    FailureClass.MODERATION: (
        "Moderation refused the prompt or a picture; it will refuse the same request again. Change the request, or "
        "name the class to try anyway: `runner rerun --class moderation`."
    ),
    FailureClass.OUTPUT_MODERATION: (
        "Moderation refused the video that was made, which is chance: another take of the same request may pass. "
        "`runner rerun` pays for one; `reroll` in the manifest lets a run do so itself."
    ),
    FailureClass.REMOTE_FAILED: (
        "The API accepted the job and failed to generate the video. `runner rerun` submits it as a new, paid attempt."
    ),
    FailureClass.REMOTE_CANCELLED: (
        "Somebody with access to the account canceled the task. `runner rerun` submits it again."
    ),
    FailureClass.REMOTE_EXPIRED: (
        "The task waited at the API until it expired. `runner rerun` submits it again; a quieter hour or a lower "
        "`limits.in_flight` may help."
    ),
    FailureClass.LOST: (
        "The API does not know the task, which may have been paid for. Every later run asks for it once more; "
        "`runner rerun --class lost` submits it again and may pay twice."
    ),
    FailureClass.UNCERTAIN_SUBMIT: (
        "The request may have created a paid task, but no answer confirmed it. Look in the account, then use "
        "`runner resolve` with `--task-id`, `--not-submitted` or `--give-up`."
    ),
    FailureClass.POLL_TIMEOUT: (
        "The task was still running when `poll.timeout` expired; its id is saved. `runner resume` polls it again and "
        "costs nothing; a longer `poll.timeout` avoids this."
    ),
    FailureClass.DOWNLOAD_FAILED: (
        "The video was generated and paid for, but could not be downloaded. `runner resume` downloads it again and "
        "costs nothing; URLs of videos work for about 24 hours."
    ),
    FailureClass.ASSET_INVALID: (
        "The downloaded file is not complete and playable. `runner resume` downloads it again and costs nothing; if "
        "that does not help, look at the `.part` file."
    ),
    FailureClass.BUDGET: (
        "The run reached its budget before this job. Raise the budget, then `runner resume` the run."
    ),
    FailureClass.DEADLINE: (
        "The run reached its deadline before this job was done. `runner resume` continues where it stopped."
    ),
    FailureClass.INTERRUPTED: (
        "The run was interrupted before this job was done. `runner resume` continues where it stopped."
    ),
    FailureClass.INTERNAL: (
        "This is a bug in runner; the job was stopped so that nothing is paid twice. Report it with the message, then "
        "`runner rerun`."
    ),
}


_GIVEN_UP = (
    "The request may have created a paid task, and the job was given up. `runner rerun --class uncertain_submit` "
    "submits it again and may pay twice."
)


def advice(cls: FailureClass, *, is_given_up: bool = False) -> str:
    """
    Return what to do about a failure of this class.

    Args:
        is_given_up: Whether no job of the class is still uncertain, because a person wrote them off.

    >>> advice(FailureClass.QUOTA)
    'The account is out of credit, and nothing was charged. Top it up, then `runner resume` the run.'
    """
    return _GIVEN_UP if is_given_up and cls is FailureClass.UNCERTAIN_SUBMIT else _ADVICE[cls]
