"""The groups are named in three places; these tests hold them to one list."""

import re
from typing import Any

import pytest
import yaml
from honcho.environ import parse_procfile

from celery_app import GROUPS
from local.process import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROCFILE: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes


def worker_name(group: str) -> str:
    return group.replace("service-", "worker-")


def test_procfile_runs_one_worker_for_each_group() -> None:
    workers = {name: command for name, command in PROCFILE.items() if name.startswith("worker-")}
    assert list(workers) == [worker_name(group) for group in GROUPS]
    for group, command in zip(GROUPS, workers.values(), strict=True):
        assert re.search(r" -Q (\S+) -n (\S+)\$INSTANCE@%h ", command).groups() == (group, group)  # type: ignore[union-attr]


def test_compose_runs_one_worker_for_each_group() -> None:
    workers = {name: service for name, service in COMPOSE["services"].items() if name.startswith("worker-")}
    assert {name: service["environment"]["GROUP"] for name, service in workers.items()} == {
        worker_name(group): group for group in GROUPS
    }


def test_compose_runs_what_the_procfile_runs() -> None:
    servers_and_jobs = {"postgres", "redis", "migrate"}
    assert COMPOSE["services"].keys() - servers_and_jobs == PROCFILE.keys()


@pytest.mark.parametrize("name", sorted(COMPOSE["services"].keys() - {"migrate"}))
def test_every_lasting_service_has_a_health_check(name: str) -> None:
    assert COMPOSE["services"][name]["healthcheck"]["test"]


def test_ports_are_published_on_the_loopback_address_only() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_secrets_have_no_defaults() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = re.findall(r"\$\{(\w*(?:SECRET|PASSWORD|AUTH)\w*)(.*?)\}", text)
    assert {name for name, _ in secrets} == {"SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_BASIC_AUTH"}
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_workers_have_longer_to_stop_than_the_gateway_drains() -> None:
    drain_s = int(re.search(r"--timeout-graceful-shutdown\D+(\d+)", (ROOT / "Dockerfile").read_text())[1])  # type: ignore[index]
    for name, service in COMPOSE["services"].items():
        if name.startswith(("worker-", "gateway")):
            assert int(service["stop_grace_period"].removesuffix("s")) > drain_s
