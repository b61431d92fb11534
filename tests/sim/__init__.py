"""A simulation of many server processes: their bus, sessions and follows are the real code.

The network, Postgres, the agents and the processors are models, and time is virtual.
"""
