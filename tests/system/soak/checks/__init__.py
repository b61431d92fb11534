"""What is checked when a run is over: each file one promise, from the ledger to findings.

Nothing here touches the world, so that each check is itself tested with ledgers made by hand.
"""
