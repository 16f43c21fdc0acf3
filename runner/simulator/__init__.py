"""
A simulated gateway on loopback, with the API's answers and faults, and real videos.

It knows the API's formats and the schemas, but not the client. `server` starts it, and `README.md` explains scenarios.
"""
