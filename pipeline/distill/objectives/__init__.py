"""Losses that a student can minimise: a file here and a line in pipeline/registry.py each."""
