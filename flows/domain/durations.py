"""Durations that users give: seconds, or a timedelta."""

from datetime import timedelta

from flows.domain.errors import InvalidInputError

Duration = timedelta | float

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


def to_timeout(value: Duration, field: str = "timeout") -> timedelta:
    """As ``to_duration``, for the time until a deadline: 0 would be over at once."""
    duration = to_duration(value, field)
    if not duration:
        raise InvalidInputError(field, "must be more than 0")
    return duration
