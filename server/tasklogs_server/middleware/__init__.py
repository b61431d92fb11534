"""What happens to every call around its handler. `interceptor` lists the steps in order.

No SQL, and nothing that only one RPC needs.
"""
