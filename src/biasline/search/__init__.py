"""`biasline tune`: a search over the biases, rates and steps of a task's training, judged by its validation rows."""
