"""The rules that always hold: breaks of the code, and the tests that detect them."""
