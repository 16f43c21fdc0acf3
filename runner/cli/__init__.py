"""
The command line: one module a command, imported only when the command is used.

`main` finds commands and shows errors; `console` knows how to speak to people;
everything that is done is done by `runner.api`.
"""
