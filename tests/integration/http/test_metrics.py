import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.domain.promise import Kind
from tests.integration.conftest import call, resolve, suspend


@pytest.fixture
def token(settings):
    settings.FLOWS = settings.FLOWS | {"METRICS_TOKEN": "secret", "GROUPS": ("g", "idle")}
    return {"Authorization": "Bearer secret"}


@pytest.fixture
def numbers(ask, token):
    """Return what Prometheus reads: values by name and labels."""

    def numbers():
        response = ask("GET", "/metrics", **token)
        assert response.status_code == 200
        families = text_string_to_metric_families(response.content.decode())
        samples = [sample for family in families for sample in family.samples]
        return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}

    return numbers


def test_there_are_no_metrics_until_they_have_a_token(ask):
    assert ask("GET", "/metrics").status_code == 404


@pytest.mark.parametrize("sent", ["", "Bearer wrong", "secret", "Bearer s\u00e9cret"])
def test_only_who_has_the_token_may_read(ask, token, sent):
    response = ask("GET", "/metrics", Authorization=sent)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")


def test_the_numbers_are_those_of_the_tables(start, claim, numbers):
    start("done")
    resolve(claim("done"))
    start("waits")
    parent = claim("waits")
    suspend(parent, call(parent, 0, Kind.EXTERNAL))
    start("ready")
    found = numbers()
    assert found["flows_promises_pending", "g", "ready"] == 1
    assert found["flows_promises_pending", "external", "g"] == 1
    assert found["flows_promises_pending", "g", "suspended"] == 1
    assert found["flows_settled_recent", "resolved"] == 1
    assert 0 < found["flows_queue_oldest_seconds", "g"] < 60
    assert (found["flows_nodes", "g"], found["flows_nodes", "idle"], found["flows_nodes_alive",]) == (1, 0, 1)


def test_without_any_worker_there_is_no_sweep_to_tell_of(numbers):
    found = numbers()
    assert ("flows_last_sweep_age_seconds",) not in found
    assert found["flows_nodes", "idle"] == 0
