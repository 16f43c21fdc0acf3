"""
The command line: commands that belong together in one module, imported only when one is used.

`main` finds the command and turns errors into messages and exit codes, `console` prints, and `runner.api` does
the work.
"""
