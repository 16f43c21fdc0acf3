"""
What each command does, for programs too.

The way of a run: `options` holds what the user asks, `config` what is in force, `run_dir` opens the
run directory, and `execute` builds the parts and runs the engine.
"""
