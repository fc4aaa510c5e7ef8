"""BitFit as a pipeline: one frozen base, one small bias-only delta a task."""
