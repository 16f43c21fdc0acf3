"""What a person should do about a failure: one sentence a class, for the terminal, the report and the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.model import FailureClass

_ADVICE: Mapping[FailureClass, str] = {
    FailureClass.INVALID_REQUEST: (
        "The API refused the request as written, and nothing was charged. Correct the job in the manifest and run "
        "it again with `--on-changed rerun`."
    ),
    FailureClass.AUTH: (
        "The API did not accept the key, and nothing was charged. Check the environment variable that the manifest "
        "names with `runner doctor`, then `runner resume` the run."
    ),
    FailureClass.QUOTA: (
        "The account has no credit left, and nothing was charged. Top it up, then `runner resume` the run."
    ),
    FailureClass.FORBIDDEN: (
        "The key may not use this model or this service. Ask for access or choose another model, then `runner rerun`."
    ),
    FailureClass.RATE_LIMITED: (
        "The API kept answering that it gets too many requests. Lower `limits.submit` or `limits.in_flight`, then "
        "`runner rerun`."
    ),
    FailureClass.UNAVAILABLE: (
        "The service or the network was down for as long as we tried, and nothing was charged. `runner rerun` when "
        "it is back."
    ),
    FailureClass.MODERATION: (
        "The prompt or a picture was refused by moderation; the same request will be refused again. Change it, or "
        "name the class to try anyway: `runner rerun --class moderation`."
    ),
    FailureClass.REMOTE_FAILED: (
        "The API accepted the job and failed to make the video. `runner rerun` submits it as a new, paid attempt."
    ),
    FailureClass.REMOTE_CANCELLED: (
        "The task was cancelled at the API, by somebody with the same account. `runner rerun` submits it again."
    ),
    FailureClass.REMOTE_EXPIRED: (
        "The task waited at the API until it expired. `runner rerun` submits it again, perhaps at a quieter hour or "
        "with a lower `limits.in_flight`."
    ),
    FailureClass.LOST: (
        "The API no longer knows the task, which may have been paid for. Look for it in the account; "
        "`runner rerun --class lost` submits it again and may pay twice."
    ),
    FailureClass.UNCERTAIN_SUBMIT: (
        "The request may have made a paid task, and no answer says so. Look in the account, then settle it with "
        "`runner resolve`: with `--task-id`, `--not-submitted` or `--give-up`."
    ),
    FailureClass.POLL_TIMEOUT: (
        "The task was still running when our patience ended; its id is kept. `runner resume` polls it again and "
        "costs nothing; a longer `poll.timeout` avoids it."
    ),
    FailureClass.DOWNLOAD_FAILED: (
        "The video was made and paid for, and could not be fetched. `runner resume` fetches it again and costs "
        "nothing; addresses of videos live about 24 hours."
    ),
    FailureClass.ASSET_INVALID: (
        "What was fetched is not a whole, playable file. `runner resume` fetches it again and costs nothing; look at "
        "the `.part` file if it stays so."
    ),
    FailureClass.BUDGET: (
        "The run reached a bound that was set for it before this job. Raise the bound, then `runner resume` the run."
    ),
    FailureClass.DEADLINE: (
        "The run's time was up before this job was done. `runner resume` goes on where it stopped."
    ),
    FailureClass.INTERRUPTED: (
        "The run was interrupted before this job was done. `runner resume` goes on where it stopped."
    ),
    FailureClass.INTERNAL: (
        "This is a fault of the program; the job was set aside so that nothing is paid twice. Report it with the "
        "message, then `runner rerun`."
    ),
}


def advice(cls: FailureClass) -> str:
    """
    Say what to do about a failure of this class.

    >>> advice(FailureClass.QUOTA)
    'The account has no credit left, and nothing was charged. Top it up, then `runner resume` the run.'
    """
    return _ADVICE[cls]
