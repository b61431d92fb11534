"""One deliberate fault at a time: what fails, what each side is told, and that it recovers."""
