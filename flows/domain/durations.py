"""Times that users give: durations (seconds, or a timedelta), and points in time (aware datetimes)."""

from datetime import datetime, timedelta

from flows.domain.errors import InvalidInputError

Duration = timedelta | float
# How long a call may take, or until when.
Timeout = timedelta | float | datetime

# Longer than any flow, and within what PostgreSQL's timestamps and Python's dates can hold.
LONGEST = timedelta(days=36_500)


def to_duration(value: Duration, field: str = "duration") -> timedelta:
    """Return ``value`` as a timedelta; raise ``InvalidInputError`` if it is none, negative or longer than a life."""
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(field, f"must be seconds or a timedelta, and is {value!r}") from error
    if not timedelta(0) <= duration <= LONGEST:
        raise InvalidInputError(field, f"must be between 0 and {LONGEST.days} days, and is {value!r}")
    return duration


def to_timeout(value: Timeout, field: str = "timeout") -> timedelta | datetime:
    """Return the time until the deadline, which must be more than 0, or the deadline itself if that was given."""
    if isinstance(value, datetime):
        return check_aware(value, field)
    duration = to_duration(value, field)
    if not duration:
        raise InvalidInputError(field, "must be more than 0")
    return duration


def check_aware(value: datetime, field: str) -> datetime:
    """Return ``value``; raise ``InvalidInputError`` if nobody can know which moment it means."""
    if value.utcoffset() is None:
        raise InvalidInputError(
            field,
            f"{value.isoformat()} has no time zone; write timezone.make_aware(…), or datetime(…, tzinfo=UTC)",
        )
    return value


_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def in_words(duration: timedelta) -> str:
    """Return ``duration`` for people, in at most two units: 12 ms, 1.24 s, 3 min 5 s, 2 d 4 h."""
    seconds = duration.total_seconds()
    if seconds < 0:
        return f"-{in_words(-duration)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    if whole < _HOUR_S:
        return _two(whole, _MINUTE_S, "min", 1, "s")
    return _two(whole, _HOUR_S, "h", _MINUTE_S, "min") if whole < _DAY_S else _two(whole, _DAY_S, "d", _HOUR_S, "h")


def _two(seconds: int, size: int, unit: str, smaller_size: int, smaller: str) -> str:
    rest = seconds % size // smaller_size
    return f"{seconds // size} {unit} {rest} {smaller}" if rest else f"{seconds // size} {unit}"
