"""The registry: the packaged model, gates, promotion and the ledger."""
