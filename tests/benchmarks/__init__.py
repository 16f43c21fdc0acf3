"""
Benchmarks: figures beside a floor or a peer of the same run, never an assertion about time.

``python -m tests.benchmarks`` prints the whole table; see ``--help``.
"""
