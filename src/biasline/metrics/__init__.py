"""Metrics: what models are measured and judged by, each declared once."""
