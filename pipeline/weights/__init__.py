"""Weights of any origin, read without running anything, and fitted to a network."""
