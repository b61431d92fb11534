"""The server's TLS: gRPC asks for the certificate at each new connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

from tasklogs_server.auth.server_certificate import Certificate, CertificateFiles


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files. Raises BadCertificate.

    Connections that are open keep what they were opened with. Where there are authorities for
    clients, every client must have a certificate of theirs.
    """
    first = files.load()

    def now() -> grpc.ServerCertificateConfiguration | None:
        changed = files.changed()
        return None if changed is None else _configuration(changed)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        # None keeps what is in use; the stubs leave that out.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", now),
        require_client_authentication=first.client_ca is not None,
    )


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.client_ca
    )
