"""Parses RFC 3339 times with nanoseconds, as Go writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from tasklogs.log.entry import Time

_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d{0,30})?"
    r"(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)  # an event and the list show the same time
def parse(text: str) -> Time:
    """Return the time in `text`. Raises ValueError if it is not an RFC 3339 time.

    A leap second counts as the second after it. The result is in the years 1 to 9999 of UTC.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError("not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(part) for part in form.groups()[:6])
    fraction, _, sign, offset_hours, offset_minutes = form.groups()[6:]
    try:
        moment = datetime(year, month, day, hour, minute, tzinfo=UTC) + timedelta(seconds=second)
        if sign:
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except OverflowError as error:
        raise ValueError(str(error)) from None
    since = moment - _EPOCH
    return Time(since.days * 86400 + since.seconds, int((fraction or "").ljust(9, "0")))
