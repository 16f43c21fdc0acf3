"""The version, in a module of its own so that every layer can import it."""

from __future__ import annotations

__version__ = "0.1.0"
"""As in `pyproject.toml`. Looking it up in the installed package's metadata would cost every start 5 ms."""
