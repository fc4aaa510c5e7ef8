"""The server: registered models over HTTP, by the forms that people have clients for."""
