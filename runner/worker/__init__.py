"""
The three steps of one job: submit it, poll its task, deliver its assets.

Each step is a class that is built once per run with the ports it needs (`ports`) and has one
coroutine per job, which passes the changed job to the store at its end. `runner.engine` decides when a step is
taken, and what its outcome means for other jobs.
"""
