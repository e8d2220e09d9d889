"""How long to wait for a host that says it is busy: RFC 9110, section 10.2.3 (Retry-After: seconds or a date)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT_SECONDS = 2.0


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After field asks for, None where it is missing or makes no sense.

    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> retry_after("120", now), retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now), retry_after("soon", now)
    (120.0, 60.0, None)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
