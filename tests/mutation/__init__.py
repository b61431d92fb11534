"""The rules I1 to I8, which always hold: breaks of the code, and the tests that detect them."""
