"""
All jobs of a run: which step is taken next, and what the outcome of one job means for the others.

`engine` starts steps and reacts to their outcomes: `submissions`, `polls` and `downloads`; `context` has what it is given, and
`progress` reports jobs that ended.
"""
