"""
What people and other tools read after a run: an HTML page, JUnit XML, a GitHub step summary, metrics.

All of them are made from the same records and the same `core.summary`. Text from prompts and from the API is
hostile until it has gone through `core.sanitize` and the escaping of the output format.
"""
