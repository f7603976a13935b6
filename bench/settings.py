"""The product's settings, with the durable functions that are measured."""

from gateway_project.settings import *  # noqa: F403
from gateway_project.settings import FLOWS

FLOWS = FLOWS | {"MODULES": (*FLOWS["MODULES"], "bench.functions")}
