"""Figures: pictures of runs, biases and comparisons, drawn from the pipeline's outs."""
