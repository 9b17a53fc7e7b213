"""Search engines. A new one is a file here and a line in pipeline/registry.py."""
