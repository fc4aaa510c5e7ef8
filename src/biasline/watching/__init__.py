"""What is served, held against what the model was evaluated on."""
