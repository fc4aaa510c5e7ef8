"""The server under load: see `__main__`."""
