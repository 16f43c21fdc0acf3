"""
All jobs: which step is taken next, and what one job's outcome means for the others.

`engine` starts steps and reacts to their outcomes; `window` holds the few jobs
that are next to be submitted; `feed` appends the results of jobs that ended.
"""
