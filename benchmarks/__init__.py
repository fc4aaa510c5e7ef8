"""The numbers that the README and the docs claim, each from one command."""
