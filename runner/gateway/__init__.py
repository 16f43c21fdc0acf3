"""
The API: the HTTP client, and the keys that it may use.

Nothing above this package handles a status code, a header or an exception of the HTTP
library: each call returns one of the values in `core.outcomes`.
"""
