"""Losses that a student can minimise. A new one is a file here and a line in pipeline/registry.py."""
