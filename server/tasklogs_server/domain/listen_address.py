"""Reads an address to listen on, which an operator wrote."""


def host_and_port(listen: str) -> tuple[str, int]:
    """Split PORT or HOST:PORT. A port alone is on 127.0.0.1. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be PORT or HOST:PORT")
    return host or "127.0.0.1", int(port)
