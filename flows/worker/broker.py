"""Two places where kombu's Redis transport ends or silences a worker when Redis fails, put right in this process.

Seen with kombu 5.7. Both would leave a worker that beats and takes no work, or none; no setting avoids them.
"""

from typing import Any

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Forgets a message also if Redis did not answer its acknowledgement.

    kombu keeps it as one in hand for ever, and with a prefetch count of 1 the worker then takes no other. Redis gives
    it out once more after the visibility timeout: for a promise that has been run that is harmless.
    """

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject a message."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)


# kombu's own name, private to it, and not in its type stubs.
_NAME = "_connparams"
_connparams = getattr(redis.Channel, _NAME)


def _kept_connparams(channel: Any, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's
    """Return how a channel connects: as it did before, once its connection is lost.

    kombu asks the lost one, of which nothing is left, when it restores unacknowledged messages; the AttributeError
    ends a busy worker.
    """
    kept = channel.__dict__.setdefault("_flows_connparams", {})
    if channel.connection.client is not None or not kept:
        kept[asynchronous] = _connparams(channel, asynchronous)
    return dict(kept.get(asynchronous) or next(iter(kept.values())))


def install() -> None:
    """Use both in this process, for connections that are made from now on."""
    redis.Channel.QoS = QoS
    setattr(redis.Channel, _NAME, _kept_connparams)
