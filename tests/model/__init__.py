"""The protocol as models that spin explores exhaustively. `make model` runs them."""
