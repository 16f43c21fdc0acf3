"""
What is left when a run has ended, for other programs and other people.

`results.jsonl`, `failed.yaml` and `summary.json` are written from the store's
records, and can be written again from them at any time. The way back, from a
results file alone, is `reader`.
"""
