"""Where the server listens, and what is too open to be started."""

from __future__ import annotations

import ipaddress

from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings


def listen_address(settings: ServerSettings) -> tuple[str, int]:
    """Return host and port, where serving there is safe. Raises StartupError."""
    host, _, port = settings.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise StartupError(f"--listen {settings.listen}: must be HOST:PORT")
    if not settings.insecure and not _is_loopback(host.strip("[]")):
        _refuse_open_doors(settings)
    return host, int(port)


def _refuse_open_doors(settings: ServerSettings) -> None:
    missing = []
    if settings.tls_cert is None:
        missing.append("TLS (--tls-cert FILE --tls-key FILE)")
    if settings.auth not in ("jwt", "mtls"):
        missing.append(
            "authentication (--auth jwt or --auth mtls; --auth dev does not count)"
            if settings.auth == "dev"
            else "authentication (--auth jwt or --auth mtls)"
        )
    if missing:
        raise StartupError(
            f"--listen {settings.listen}: beyond loopback this needs {' and '.join(missing)};"
            " listen on 127.0.0.1, or say --insecure to serve without"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
