"""
``run.db``: everything that a run knows, and the promises that keep it.

`layout` says what is stored and what each write promises; `lock` keeps other
processes out; `sync` takes a manifest's jobs in; `writer` commits in groups;
`query` reads.
"""

from runner.store.store import Store

__all__ = ["Store"]
