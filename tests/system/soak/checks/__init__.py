"""The checks of a finished run. Each file checks one promise: it turns the ledger into findings.

Nothing here uses the running system, so each check is itself tested with handmade ledgers.
"""
