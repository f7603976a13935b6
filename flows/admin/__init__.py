"""Promises, attempts and nodes in the Django admin: rows are read, never edited; what may be done are operations."""

from flows.admin import promises, rows  # noqa: F401 - registers them
