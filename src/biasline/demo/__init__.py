"""The demo: a tiny base and the data to tune it on, both made from nothing by this package.

Nothing else in Biasline needs it; it stands on its own as the record of where the committed files come from.
"""
