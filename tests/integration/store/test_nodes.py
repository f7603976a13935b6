"""Nodes sign on and off."""

import pytest

from flows.models import Node
from flows.store import nodes, sql
from flows.store.nodes import NodeInfo

INFO = NodeInfo(name="service-a@host", groups=("service-a",), hostname="host", pid=1)


@pytest.mark.django_db(transaction=True)
def test_a_node_signs_off_through_a_connection_that_has_died():
    node_id = nodes.register(INFO)
    sql.ensured().close()

    nodes.stop(node_id)

    assert Node.objects.get(pk=node_id).stopped_at is not None
