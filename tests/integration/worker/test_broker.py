"""A channel of kombu's Redis transport, as a worker uses it."""

import pytest
from kombu import Connection
from kombu.transport import redis

from flows.worker import broker


@pytest.fixture
def channel(servers, monkeypatch):
    for name in ("QoS", "_connparams", "_create_client"):
        monkeypatch.setattr(redis.Channel, name, getattr(redis.Channel, name))
    broker.install()
    with Connection(servers.redis_url) as connection:
        yield connection.channel()


def used(channel):
    with channel.conn_or_acquire() as client:
        assert client.ping()
        return client


def test_all_commands_of_a_channel_share_a_client(channel):
    assert used(channel) is used(channel)


def test_a_channel_whose_connections_were_replaced_has_a_client_for_the_new_ones(channel):
    before = used(channel)
    channel._pool = None
    assert used(channel).connection_pool is not before.connection_pool


def test_blocking_and_other_commands_have_clients_of_their_own(channel):
    assert channel.client is not used(channel)
    assert channel.client.connection_pool is channel.async_pool
