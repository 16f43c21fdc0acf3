"""
Decisions, as pure functions and values: no clock, no random numbers, no files, no network.

The time and random numbers are arguments; the result is a value that says what to do next, and the callers
do it. Comments such as "(fact F36)" refer to the facts about the API in ``schemas/README.md``.
"""
