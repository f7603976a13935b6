"""Measurements of the running system, by commands that anyone can repeat."""
