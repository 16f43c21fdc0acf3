"""
A gateway on loopback that acts out the real one: its shapes, its faults, and real videos.

It knows the wire format and the schemas, and nothing of our client. `server`
has the way in; `scenario` says what a scenario file may hold.
"""
