"""
The way to the API: the HTTP client, and the keys that it may use.

Nothing above this room sees a status code, a header or an exception of the HTTP
library: each call comes back as one of the values in `core.outcome`.
"""
