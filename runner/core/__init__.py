"""
What is decided, without acting: no clock, no chance, no files, no network.

Time and random draws come in as arguments; what goes out is a value that says
what to do next. The edges do it. Comments such as "fact F36" refer to the facts about the
API in ``schemas/README.md``.
"""
