"""The product's settings, with the flows of chaos and the table that its atomic steps write."""

from gateway_project.settings import *  # noqa: F403
from gateway_project.settings import FLOWS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "chaos"]
FLOWS = FLOWS | {"MODULES": (*FLOWS["MODULES"], "chaos.flows"), "GROUPS": (*FLOWS["GROUPS"], "north", "south")}
