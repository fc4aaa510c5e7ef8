"""Kinds of tasks, two files each: what is learned (`learning/`), and what is answered (`answering/`).

Both are found by their names; nothing else lists kinds or compares with a kind's name. Rooms are handed a `Learning` or
an `Answering`, ask it what differs from kind to kind, and give it what they have in common.

A module here may be loaded before parameters are read, so it imports at its top only what stands above `params`; what
its functions use they import themselves.
"""
