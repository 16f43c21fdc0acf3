"""
All jobs of a run: which step is taken next, and what the outcome of one job means for the others.

`engine` starts steps and reacts to their outcomes; `pending_jobs` holds the few jobs
that are next to be submitted; `results_appender` writes the result lines of jobs that ended.
"""
