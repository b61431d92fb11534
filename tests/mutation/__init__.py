"""The rules that hold always, I1 to I8: breaks of the code, and the tests that see them."""
