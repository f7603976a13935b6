"""The command line: each subcommand is one operation, or one read, and how its outcome is told.

Exit codes: 0 it was done, or all is well; 1 nothing was done, nothing was found, the flow that was watched did not
resolve, or something is unhealthy; 2 the command was used wrongly.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, InterfaceError

from flows.cli.output import Output
from flows.domain.errors import FlowsError, InvalidInputError

DONE, NOT_DONE, MISUSED, INTERRUPTED = 0, 1, 2, 130


def run(options: Mapping[str, Any]) -> int:
    """Run the subcommand that was asked for; return its exit code."""
    output = Output(as_json=options["json"], no_color=options["no_color"], force_color=options["force_color"])
    try:
        return int(options["act"](output, options))
    except InvalidInputError as error:
        return output.fail(MISUSED, error)
    except FlowsError as error:
        return output.fail(NOT_DONE, error)
    except (DatabaseError, InterfaceError) as error:
        return output.fail(NOT_DONE, error, f"PostgreSQL cannot be asked: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
