"""Tests of `runner.scale` that need no Ray."""
