"""
What people and other tools look at when a run has ended: a page, JUnit, a step summary, metrics.

All of it comes from the same records and the same `core.summary`. Text from prompts
and from the API is hostile until it has gone through `words.plain` and the escaping
of the format that it goes into.
"""
