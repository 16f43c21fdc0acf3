"""
Download assets: only complete, verified and durable files get their final names.

The order of a download: `url_policy` decides where to connect, `response` what a
response means, `receive` and `part_file` write the body, `publish` gives the final name. `fetch` runs it.
"""
