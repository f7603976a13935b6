"""Three places in kombu's Redis transport, put right in this process; no setting avoids them. Seen with kombu 5.7.

In two of them Redis, failing, ends or silences a worker: one that beats and takes no work is left, or none. In the
third each command costs more than it need.
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


# kombu's own names, private to it, and not in its type stubs.
_CONNPARAMS, _CREATE_CLIENT = "_connparams", "_create_client"
_connparams, _create_client = getattr(redis.Channel, _CONNPARAMS), getattr(redis.Channel, _CREATE_CLIENT)


def _kept_connparams(channel: Any, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's
    """Return how a channel connects: as it did before, once its connection is lost.

    kombu asks the lost one, of which nothing is left, when it restores unacknowledged messages; the AttributeError
    ends a busy worker.
    """
    kept = channel.__dict__.setdefault("_flows_connparams", {})
    if channel.connection.client is not None or not kept:
        kept[asynchronous] = _connparams(channel, asynchronous)
    return dict(kept.get(asynchronous) or next(iter(kept.values())))


def _kept_client(channel: Any, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's
    """Return the client of a channel's connections.

    kombu makes a new one for each command, two for each message that a worker takes: longer work than the command.
    """
    pool = channel.async_pool if asynchronous else channel.pool
    kept = channel.__dict__.setdefault("_flows_clients", {})
    if asynchronous not in kept or kept[asynchronous].connection_pool is not pool:
        kept[asynchronous] = _create_client(channel, asynchronous)
    return kept[asynchronous]


def install() -> None:
    """Use all three in this process, for connections that are made from now on."""
    redis.Channel.QoS = QoS
    setattr(redis.Channel, _CONNPARAMS, _kept_connparams)
    setattr(redis.Channel, _CREATE_CLIENT, _kept_client)
