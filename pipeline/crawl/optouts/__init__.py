"""Opt-outs: what owners say of training on their pictures, wherever they say it.

`forms` is the table of all that is read; `docs/opt-outs.md` shows it.
"""
