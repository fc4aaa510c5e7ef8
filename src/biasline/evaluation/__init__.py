"""Evaluation: base and tuned model on one test set, pair by pair; metrics with intervals; the model card."""
