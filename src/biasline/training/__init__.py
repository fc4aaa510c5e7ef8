"""Training: the loss at supervised positions, batches, the loop and the fingerprint that names a run."""
