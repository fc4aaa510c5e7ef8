"""The study of what trains best: `python -m benchmarks.study`."""
