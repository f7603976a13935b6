"""Promises, attempts and nodes in the Django admin: to be read, not to be edited."""

from flows.admin import pages  # noqa: F401 - registers them
