"""What waits in the broker. It may be away: whoever asks goes on all the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from celery import current_app
from kombu.exceptions import KombuError
from redis import RedisError


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """How many messages wait, by queue; or why that is not known, in ``trouble``."""

    lengths: dict[str, int] = field(default_factory=dict)
    trouble: str = ""

    @property
    def total(self) -> int:
        """How many messages wait in all."""
        return sum(self.lengths.values())


def read_queues(names: Sequence[str]) -> Queues:
    """Return the lengths of the queues with these names; takes as long as the broker's time-outs at the most."""
    try:
        with current_app.connection_for_read() as connection:
            # Not `default_channel`, which tries for ever to connect.
            client = connection.channel().client  # type: ignore[attr-defined]  # of the Redis transport
            with client.pipeline(transaction=False) as asked:
                for name in names:
                    asked.llen(name)
                return Queues(lengths=dict(zip(names, asked.execute(), strict=True)))
    except (KombuError, RedisError, OSError) as error:
        return Queues(trouble=str(error) or type(error).__name__)
    except AttributeError:
        return Queues(trouble="lengths of queues are known of Redis only")
