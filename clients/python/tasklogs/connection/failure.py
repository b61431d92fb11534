"""Why a connection did not come about, where gRPC's words are of no help: mostly it is TLS."""

from __future__ import annotations

from enum import Enum, auto

from tasklogs.connection.tls import Tls


class ConnectionFailure(Enum):
    """What gRPC's message comes down to."""

    NOT_TRUSTED = auto()
    PLAIN_TEXT = auto()
    HUNG_UP = auto()

    @classmethod
    def of(cls, message: str) -> ConnectionFailure | None:
        """Read the message of an UNAVAILABLE that no server sent; None: it is none of these."""
        if "CERTIFICATE_VERIFY_FAILED" in message or "Hostname Verification" in message:
            return cls.NOT_TRUSTED
        if "WRONG_VERSION_NUMBER" in message:
            return cls.PLAIN_TEXT
        return cls.HUNG_UP if message.endswith("Socket closed") else None

    def in_words(self, tls: Tls | None) -> str:
        """Say what the server did and which option to look at; `tls` is what was chosen."""
        match self:
            case ConnectionFailure.NOT_TRUSTED:
                return (
                    "its certificate is not trusted (--tls-ca FILE), has expired,"
                    " or is that of another host"
                )
            case ConnectionFailure.PLAIN_TEXT:
                return "it speaks plain text: leave out --tls and --tls-ca"
            case ConnectionFailure.HUNG_UP:
                return f"it hung up; {_what_it_may_want(tls)}"


def _what_it_may_want(tls: Tls | None) -> str:
    # A server that hangs up is all a client sees of plain text on a TLS port, and of a client's
    # certificate that is missing or refused.
    if tls is None:
        return "if it wants TLS, use --tls-ca FILE, and --tls-client-cert if it asks"
    if tls.certificate is None:
        return "if it wants a client's certificate, use --tls-client-cert and --tls-client-key"
    return (
        f"it may refuse the certificate in {tls.certificate}: expired, or not signed by an"
        " authority of the server's --tls-client-ca"
    )
