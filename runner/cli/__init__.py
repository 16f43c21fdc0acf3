"""
The command line: one module per command, imported only when the command is used.

`main` finds the command and turns errors into messages and exit codes, `console` prints, and `runner.api` does
the work.
"""
