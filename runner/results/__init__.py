"""
The files that a run leaves, for other programs and other people.

`results.jsonl`, `failed.yaml` and `summary.json` are written from the store's records, and can be written
again from them at any time. `reader` reads a results file without the store.
"""
