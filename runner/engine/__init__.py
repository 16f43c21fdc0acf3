"""
All jobs of a run: which step is taken next, and what the outcome of one job means for the others.

`engine` starts steps and reacts to their outcomes; `context` has what its parts share, and reports jobs that ended.
"""
