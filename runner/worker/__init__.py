"""
The three steps of one job: submit it, poll its task, deliver its assets.

Each step is a class that is built once per run with the ports it needs (`ports`) and has one
coroutine per job, which ends with the job's change handed to the store. When a step is taken, and
what its outcome means for other jobs, is decided in `runner.engine`.
"""
