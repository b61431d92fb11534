"""The `authorization` header of a user: a JWT, or anything else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from tasklogs_server.auth.keys import parse_jwks
from tasklogs_server.auth.verifier import ADMIN_SCOPE, Expected, FixedKeys, TokenVerifier
from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.domain.names import owner_violations
from tasklogs_server.middleware.authentication import bearer_of, by_token
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.calls import Call, agent_tokens
from tests.fuzz.targets.issuer import (
    AUDIENCE,
    IN_THE_YEAR_2100,
    ISSUER,
    LONG_AGO,
    FuzzedIssuer,
    claims,
    token,
)

_LEEWAY = timedelta(seconds=10)
_BEARER = b"Bearer "
_AFTER_HEADER = b"\n"

_HEADERS: Sequence[bytes] = (
    b'{"alg":"EdDSA","kid":"ed"}',
    b'{"alg":"ES256","kid":"ec","typ":"at+jwt"}',
    b'{"alg":"EdDSA","kid":"nobody"}',
    b'{"alg":"EdDSA","kid":7}',
    b'{"alg":"EdDSA"}',
    b'{"alg":"none","kid":"ed"}',
    b'{"alg":"HS256","kid":"ed"}',
    b'{"alg":"EdDSA","kid":"ed","b64":false,"crit":["b64"]}',
    b'{"alg":"EdDSA","kid":"ed","crit":["exp"],"exp":1}',
    b'{"alg":"EdDSA","kid":"ed","jku":"https://evil.example","jwk":{"kty":"OKP"}}',
    b'{"alg":"EdDSA","alg":"none","kid":"ed","kid":"ec"}',
    b'{"alg":["EdDSA"],"kid":{"a":[]}}',
)
_CLAIMS: Sequence[dict[str, Any]] = (
    claims(),
    claims(sub="root"),
    claims(scope=f"openid {ADMIN_SCOPE}", aud=["other", AUDIENCE]),
    claims(scope=[ADMIN_SCOPE, 7], nbf=LONG_AGO),
    claims(scope={ADMIN_SCOPE: True}),
    claims(scope=9),
    claims(exp=LONG_AGO),
    claims(nbf=IN_THE_YEAR_2100),
    claims(aud="other"),
    claims(sub=None),
    claims(sub="a\nb"),
    claims(sub=["alice"]),
    claims(sub="\ud800"),
    claims(exp=str(IN_THE_YEAR_2100)),
    claims(exp=float("inf")),
    claims(exp=float("nan")),
    claims(exp=1e300),
    claims(exp=True, iat="x"),
)
# By the letter that a forged token may begin with.
_SIGNERS = {b"E": "EdDSA", b"C": "ES256", b"N": "none", b"H": "HS256", b"R": "HS256 raw"}


class UserTokens(Target):
    """Values of the header. After `!` and a letter: header and claims that are signed here.

    A value is accepted only if its signed bytes are exactly those that the issuer signed for a
    seed; the base64 of its signature may be written differently. A token signed here is accepted
    only if a key of the issuer signed it, and the resulting user is what its claims say.
    """

    name: ClassVar[str] = "user_tokens"
    max_bytes: ClassVar[int] = 16_384
    tokens: ClassVar[Sequence[bytes]] = (
        *(_BEARER, b"!E", b"!C", b"!N", b"!H", b"tla_", b"\n", b"eyJhbGciOiJub25lIn0"),
        *(b'"exp":', b'"sub":', b'"scope":"tasklogs:admin"', b'"crit":["b64"]', b"Infinity"),
        *(b"4102444800", b"\\ud800", b"\\u0000", b'"aud":["tasklogs"]', b"-Infinity", b"1e9"),
    )

    def __init__(self) -> None:
        self._loop = Loop()
        issuer = FuzzedIssuer.make()
        self._signers = issuer.signers
        self._keys = parse_jwks(issuer.jwks)
        self._expected = Expected(ISSUER, AUDIENCE, _LEEWAY, admins=("root",))
        self._signed = {
            one.rpartition(".")[0]
            for kind in ("EdDSA", "ES256")
            for header in _HEADERS
            for claimed in _CLAIMS
            for one in [token(header, json.dumps(claimed).encode(), self._signers[kind])]
        }

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        for claimed in _CLAIMS:
            yield from self._both(b"E", _HEADERS[0], json.dumps(claimed).encode())
        for header in _HEADERS[1:]:
            for letter in _SIGNERS:
                yield from self._both(letter, header, json.dumps(_CLAIMS[0]).encode())
        good = token(_HEADERS[0], json.dumps(_CLAIMS[0]).encode(), self._signers["EdDSA"]).encode()
        yield _BEARER + good + b"=="
        yield _BEARER + good + b"\n" + _BEARER + good
        yield b"bearer \t" + good + b" "
        yield b"Basic " + good
        yield b"Bearer tla_" + b"0" * 32 + b"_secret"
        for payload in (b"[" * 5000, b'{"sub":' * 2000, b"9" * 5000, b"\xff\xfe{", b"null", b'""'):
            yield b"!E" + _HEADERS[0] + _AFTER_HEADER + payload
            yield b"!E" + payload[:4000] + _AFTER_HEADER + b"{}"

    def run(self, data: bytes) -> None:
        if data[:1] == b"!" and data[1:2] in _SIGNERS:
            self._check_signed_here(_SIGNERS[data[1:2]], data[2:])
        else:
            self._check_raw(data)

    def _both(self, letter: bytes, header: bytes, payload: bytes) -> Iterable[bytes]:
        yield b"!" + letter + header + _AFTER_HEADER + payload
        yield _BEARER + token(header, payload, self._signers[_SIGNERS[letter]]).encode()

    def _check_raw(self, data: bytes) -> None:
        call = Call(data)
        if self._user(call) is not None:
            brought = bearer_of(call.as_context())
            assert brought is not None
            assert brought.rpartition(".")[0] in self._signed

    def _check_signed_here(self, kind: str, data: bytes) -> None:
        header, _, payload = data.partition(_AFTER_HEADER)
        user = self._user(Call(_BEARER + token(header, payload, self._signers[kind]).encode()))
        if user is None:
            return
        assert kind in ("EdDSA", "ES256")
        said = json.loads(header)
        assert said["alg"] == kind
        assert "crit" not in said or said["crit"] is None
        self._check_claims(user, json.loads(payload))

    def _check_claims(self, user: User, said: dict[str, Any]) -> None:
        assert said["iss"] == ISSUER
        assert AUDIENCE in said["aud"]
        assert user.subject == said["sub"]
        assert not owner_violations(user.subject)
        scope = said.get("scope")
        scopes = scope.split() if isinstance(scope, str) else scope
        if not isinstance(scopes, list):
            scopes = []
        assert user.is_admin == (user.subject == "root" or ADMIN_SCOPE in scopes)
        assert user.expires_at is not None
        assert user.expires_at > datetime.now(UTC)
        year_9998 = 253_370_764_800
        assert user.expires_at.timestamp() <= min(float(said["exp"]), year_9998) + 10

    def _user(self, call: Call) -> User | None:
        verifier = TokenVerifier(
            FixedKeys(self._keys), self._expected, clock=lambda: datetime.now(UTC)
        )
        user_of = by_token(verifier, agent_tokens({}), lambda _: None)
        try:
            user = self._loop.run(user_of(call.as_context()))
        except Unauthenticated as refused:
            assert len(refused.message) < 200
            return None
        # The second check uses the cache and gives the same result.
        assert self._loop.run(user_of(call.as_context())) == user
        return user
