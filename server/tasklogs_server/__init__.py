"""The server: services -> logs, agents -> store, bus -> domain; app.py composes them.
What only clients need does not come in."""
