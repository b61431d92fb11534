"""Checks bearer tokens (RFC 7519) and returns their users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import jwt
import structlog

from tasklogs_server.auth.keys import Key, Keys
from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import KeysUnavailable, TokenExpired, Unauthenticated
from tasklogs_server.domain.names import owner_violations

ADMIN_SCOPE = "tasklogs:admin"

# Of the tokens that were checked.
_REMEMBERED = 4096
_REMEMBERED_BYTES = 32 * 1024 * 1024
_RETRY_AFTER = timedelta(seconds=1)

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """The current keys, and a way to get newer ones."""

    @property
    def keys(self) -> Keys | None:
        """None: no keys were read yet."""

    async def look_again(self) -> None:
        """Read the keys again, unless that was done a moment ago."""


@dataclass(slots=True)
class FixedKeys:
    """Keys that never change."""

    keys: Keys | None

    async def look_again(self) -> None:
        """Do nothing: there are no others."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say. `leeway`: allowed difference between the clocks of both sides."""

    issuer: str
    audience: str
    leeway: timedelta
    admins: Collection[str] = ()
    """Subjects with admin rights, in addition to tokens that carry the scope."""


class TokenVerifier:
    """Checks tokens. Remembers checked tokens until they expire or the keys change."""

    def __init__(self, source: KeySource, expected: Expected, *, clock: Callable[[], datetime]):
        self._source = source
        self._expected = expected
        self._clock = clock
        self._checked: OrderedDict[str, User] = OrderedDict()
        self._checked_bytes = 0
        self._checked_with: Keys | None = None

    async def user(self, token: str) -> User:
        """Return the token's user. Raises Unauthenticated; KeysUnavailable before the first key."""
        known = self._remembered(token)
        if known is not None:
            return known
        kid = _kid(token)
        key = self._find(kid)
        if key is None:
            await self._source.look_again()
            key = self._find(kid)
        if key is None:
            if self._source.keys is None:
                raise KeysUnavailable(_RETRY_AFTER)
            raise _invalid("unknown key")
        user = self._check(token, key)
        self._remember(token, user)
        return user

    def _remember(self, token: str, user: User) -> None:
        self._forget(token)  # another call may have checked it meanwhile
        self._checked[token] = user
        self._checked_bytes += len(token)
        while len(self._checked) > _REMEMBERED or self._checked_bytes > _REMEMBERED_BYTES:
            self._forget(next(iter(self._checked)))

    def _forget(self, token: str) -> None:
        if self._checked.pop(token, None) is not None:
            self._checked_bytes -= len(token)

    def _remembered(self, token: str) -> User | None:
        if self._checked_with is not self._source.keys:
            # A key may have been withdrawn: its tokens are invalid now.
            self._checked.clear()
            self._checked_bytes = 0
            self._checked_with = self._source.keys
        user = self._checked.get(token)
        if user is None or user.expires_at is None:
            return None
        if user.expires_at <= self._clock():
            self._forget(token)
            raise TokenExpired
        return user

    def _find(self, kid: str | None) -> Key | None:
        keys = self._source.keys
        return None if keys is None else keys.find(kid)

    def _check(self, token: str, key: Key) -> User:
        expected = self._expected
        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=key.algorithms,
                issuer=expected.issuer,
                audience=expected.audience,
                leeway=expected.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return self._user(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except Unauthenticated:
            raise
        # An attacker's JSON can cause errors of any type (an infinite exp, endless nesting).
        except Exception as error:
            raise _invalid(type(error).__name__) from None

    def _user(self, claims: Mapping[str, Any]) -> User:
        subject = claims["sub"]
        if owner_violations(subject):
            raise _invalid("the subject is not a valid owner")
        is_admin = subject in self._expected.admins or ADMIN_SCOPE in _scopes(claims)
        return User(subject, is_admin, _expiry(claims["exp"]) + self._expected.leeway)


def _kid(token: str) -> str | None:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except Exception as error:  # as above
        raise _invalid(type(error).__name__) from None
    return kid if isinstance(kid, str) else None


def _scopes(claims: Mapping[str, Any]) -> Collection[str]:
    # RFC 9068: one string, separated by spaces. Some issuers send a list.
    scope = claims.get("scope", "")
    if isinstance(scope, str):
        return scope.split(" ")
    return [one for one in scope if isinstance(one, str)] if isinstance(scope, list) else []


def _expiry(exp: Any) -> datetime:
    # Past the last year of the calendar: never. A year is left for the leeway to be added.
    try:
        return min(datetime.fromtimestamp(int(exp), UTC), datetime(9998, 1, 1, tzinfo=UTC))
    except (OverflowError, ValueError, OSError):
        return datetime(9998, 1, 1, tzinfo=UTC)


def _invalid(why: str) -> Unauthenticated:
    # The reason is for operators. The caller is told no more than this.
    _log.debug("token.refused", reason=why)
    return Unauthenticated("token invalid")
