"""MLflow as a projection of the outs and the ledger: runs, lineage, sync.

Only this room, `serving` and `registry` know MLflow.
"""
