"""``manage.py flows``: looks at flows, and does to them what the operations do."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from flows import cli
from flows.cli.arguments import add_arguments


class Command(BaseCommand):
    """One command with subcommands; see ``flows.cli``."""

    help = "Look at durable flows, and retry, cancel, settle, release, run again or purge them."
    # A doctor is called when something is wrong.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand, and end with its exit code."""
        sys.exit(cli.run(options))
