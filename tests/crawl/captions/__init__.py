"""Tests of the engine `captions`."""
