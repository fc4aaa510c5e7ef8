"""Serving: what answers. Packaged models and their check, predictors, the shared base, export to stock Transformers."""
