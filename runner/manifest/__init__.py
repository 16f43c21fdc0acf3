"""
From a manifest's text to jobs: read with positions, expanded, normalized and checked, as a stream.

`loader.load` is the entry point. Everything that is wrong is reported, in one pass.
"""
