import socket

import pytest
from celery import current_app
from django.contrib.auth.models import User

from flows.domain.promise import Kind
from flows.store import nodes, sql
from tests.integration.conftest import call, resolve, suspend

PAGE = "/admin/flows/promise/overview/"


@pytest.fixture
def shown(admin_client, queue_length):
    """Return the figures of the page by name, and its groups."""

    def shown():
        context = admin_client.get(PAGE).context
        figures = {
            figure.name: figure
            for part in ("now_figures", "hour_figures", "machine_figures")
            for figure in context[part]
        }
        return figures, {row.load.group: row for row in context["groups"]}

    return shown


def test_what_is_pending_is_counted_by_what_it_waits_for(start, claim, shown):
    for promise_id in ("p", "running", "ready"):
        start(promise_id)
    parent = claim("p")
    suspend(parent, call(parent, 0, Kind.EXTERNAL, function="approval"))
    claim("running")
    figures, groups = shown()
    assert [figures[name].value for name in ("ready", "running", "suspended", "wait for somebody")] == ["1"] * 4
    assert (groups["g"].load.nodes, groups["g"].oldest_url) == (1, "/admin/flows/promise/ready/change/")


def test_a_group_without_nodes_is_marked(start, admin_client, queue_length):
    start()
    assert admin_client.get(PAGE).content.decode().count('<span class="fl-bad">0 nodes</span>') >= 2


def test_the_last_hour_counts_flows_by_outcome(start, claim, shown):
    start()
    resolve(claim())
    figures, _ = shown()
    assert (figures["✓ resolved"].value, figures["✗ rejected"].value) == ("1", "0")
    assert figures["flows a minute"].value == "0.0167"


def test_a_sweep_that_does_not_come_is_marked(holder, shown):
    assert shown()[0]["last sweep"].value == "never"
    assert nodes.take_sweep_turn(holder.node_id)
    assert shown()[0]["last sweep"].css == ""
    sql.rows("UPDATE flows_node SET swept_at = now() - interval '1 minute'")
    assert (shown()[0]["last sweep"].value, shown()[0]["last sweep"].css) == ("1 min ago", "fl-bad")


def test_messages_are_counted_by_queue(shown, start):
    with current_app.connection_for_write() as connection:
        connection.default_channel.client.rpush("service-a", "one", "two")  # type: ignore[attr-defined]  # Redis
    figures, groups = shown()
    assert groups["service-a"].messages == 2
    assert (figures["Broker"].value, figures["Broker"].more) == ("ready", "2 messages wait")


def test_a_broker_that_is_away_is_shown_and_not_raised(admin_client, start, monkeypatch):
    start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        monkeypatch.setattr(current_app.conf, "broker_read_url", away)
        page = admin_client.get(PAGE).content.decode()
    assert '<strong class="fl-bad">away</strong>' in page
    assert "unknown" in page


def test_the_database_tells_its_size_and_connections(start, shown):
    figures, _ = shown()
    (name,) = (name for name in figures if name.startswith("PostgreSQL"))
    assert figures[name].value == "ready"
    assert " MB, " in figures[name].more


def test_the_overview_is_linked_and_for_those_who_may_view_promises(client, admin_client, start):
    for path in ("/admin/flows/", "/admin/flows/promise/"):
        assert PAGE in admin_client.get(path).content.decode()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(PAGE).status_code == 403
