"""Whole assets only: fetched, verified, made durable, and only then under their final names."""
