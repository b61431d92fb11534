"""Why a connection failed, where gRPC's message does not say what to do: mostly TLS."""

from __future__ import annotations

from enum import Enum, auto

from tasklogs.connection.tls import Tls


class ConnectionFailure(Enum):
    """The causes that can be read from gRPC's message."""

    NOT_TRUSTED = auto()
    PLAIN_TEXT = auto()
    HUNG_UP = auto()

    @classmethod
    def of(cls, message: str) -> ConnectionFailure | None:
        """Read the message of an UNAVAILABLE that no server sent. None: it is another cause."""
        if "CERTIFICATE_VERIFY_FAILED" in message or "Hostname Verification" in message:
            return cls.NOT_TRUSTED
        if "WRONG_VERSION_NUMBER" in message:
            return cls.PLAIN_TEXT
        return cls.HUNG_UP if message.endswith("Socket closed") else None

    def in_words(self, tls: Tls | None) -> str:
        """Say what the server did and which option may help; `tls` is the client's setting."""
        match self:
            case ConnectionFailure.NOT_TRUSTED:
                return (
                    "its certificate is not trusted (--tls-ca FILE), has expired,"
                    " or belongs to another host"
                )
            case ConnectionFailure.PLAIN_TEXT:
                return "it does not use TLS: leave out --tls and --tls-ca"
            case ConnectionFailure.HUNG_UP:
                return f"it closed the connection; {_what_it_may_want(tls)}"


def _what_it_may_want(tls: Tls | None) -> str:
    # A TLS server that is spoken to in plain text just closes the connection. So does one that
    # misses, or refuses, a client certificate.
    if tls is None:
        return "if it requires TLS, use --tls-ca FILE; for a client certificate, --tls-client-cert"
    if tls.certificate is None:
        return "if it requires a client certificate, use --tls-client-cert and --tls-client-key"
    return (
        f"it may have refused the certificate in {tls.certificate}: it has expired, or no"
        " authority of the server's --tls-client-ca signed it"
    )
