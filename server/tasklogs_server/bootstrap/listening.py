"""Where the server listens, and which addresses are refused because they are not protected."""

from __future__ import annotations

from tasklogs.connection.loopback import is_loopback
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings


def listen_address(settings: ServerSettings) -> tuple[str, int]:
    """Return host and port. Raises StartupError where serving there would not be safe."""
    host, _, port = settings.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise StartupError(f"--listen {settings.listen}: must be HOST:PORT")
    if not settings.insecure and not is_loopback(host):
        _require_protection(settings)
    return host, int(port)


def _require_protection(settings: ServerSettings) -> None:
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
            " listen on 127.0.0.1, or use --insecure to serve without"
        )
