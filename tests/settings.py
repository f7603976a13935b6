"""The product's settings, and an app with durable functions like those of users."""

from datetime import timedelta

from gateway_project.settings import *  # noqa: F403
from gateway_project.settings import FLOWS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.orders"]
FLOWS = FLOWS | {
    "STOP_WITHIN": timedelta(seconds=2),
    "MODULES": (
        *FLOWS["MODULES"],
        "tests.orders.flows",
        "tests.orders.faulty",
        "tests.orders.timers",
        "tests.orders.parade",
    ),
    "GROUPS": (*FLOWS["GROUPS"], "orders", "suppliers"),
}
# Logging in is no test of how hard a password is to guess.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
