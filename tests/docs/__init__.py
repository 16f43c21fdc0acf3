"""The documentation against the code: what can be generated is, and a test holds the README to it."""
