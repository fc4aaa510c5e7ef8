"""The registry: versions, aliases, gates, promotion and the ledger."""
