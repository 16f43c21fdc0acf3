"""
A manifest's text to jobs: read with positions, expanded, normalised and checked, as a stream.

`check.load` is the way in. Whatever is wrong goes to a report, all of it in one pass.
"""
