"""
``run.db``: everything that a run knows of its jobs, and what each write promises.

`tables` has the tables, and `database` the connections; `lock` keeps other processes out, and `freshness` an old
``run.db``; `sync` adds a manifest's jobs; `transitions` changes many jobs between runs; `writer` commits in groups while
a run is active; `store` is what that run uses; `query` reads; `rows` converts.
"""
