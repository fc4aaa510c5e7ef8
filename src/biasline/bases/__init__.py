"""Frozen bases: pinned to a small JSON with the hash of every file, found, checked and loaded.

`pin` and `files` import no torch, so that the data stages can use a base's tokenizer cheaply.
"""
