"""How a training is run and kept from harm: processes, signals, checkpoints. Nothing in here decides a number."""
