"""What may be asked for: the subcommands and their arguments."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flows.cli import acting, doctor, listing, purging, trees
from flows.domain.promise import Kind, Phase, State
from flows.operations import PURGE_BATCH, SETTLED

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PHASES = [phase.value for phase in Phase if phase]


def duration(text: str) -> timedelta:
    """Return what ``90s``, ``15m``, ``12h``, ``30d`` or ``4w`` mean."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no duration; write 90s, 15m, 12h, 30d or 4w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not re.fullmatch(r"\d{1,9}", text) or not int(text):
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def position(text: str) -> int:
    """Return a whole number from 0 on."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise ArgumentTypeError(f"{text!r} is no position of a call: a whole number from 0 on")
    return int(text)


def add_arguments(parser: ArgumentParser) -> None:
    """Add all subcommands to ``parser``."""
    verbs = parser.add_subparsers(title="what to do", dest="verb", required=True, metavar="<verb>")

    def add(verb: str, act: Callable[..., int], tells: str, *, ids: str = "") -> ArgumentParser:
        added: ArgumentParser = verbs.add_parser(verb, help=tells, description=tells)
        if ids:
            added.add_argument("id", nargs=ids if ids == "+" else None, help="of a promise")
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(act=act)
        return added

    _add_reads(add)
    _add_actions(add)
    _add_purge(add("purge", purging.purge, "delete flows that ended long ago, or one by its id"))
    add("doctor", doctor.examine, "say what is stuck, why, and what to do")


def _add_reads(add: Any) -> None:
    listed = add("list", listing.show_list, "list flows, the newest first")
    listed.add_argument("prefix", nargs="?", default="", help="of the ids")
    listed.add_argument("--state", choices=[state.value for state in State])
    listed.add_argument("--phase", choices=_PHASES)
    listed.add_argument("--group")
    listed.add_argument("--function")
    listed.add_argument("--kind", choices=[*(kind.value for kind in Kind), "any"], default=Kind.ROOT.value)
    listed.add_argument("--limit", type=count, default=50)
    add("show", listing.show_one, "show one promise with its attempts", ids="1")
    add("tree", trees.show_tree, "show a promise and all calls below it", ids="1")
    watched = add("watch", trees.watch, "follow a call tree until its top has settled", ids="1")
    watched.add_argument("--timeout", type=duration, help="stop to watch after this time, with exit code 1")


def _add_actions(add: Any) -> None:
    add("retry", acting.retry, "run at once what waits or was set aside; open rejected flows again", ids="+")
    add("cancel", acting.cancel, "cancel promises and all calls below them", ids="+")
    add("release", acting.release, "take claims back from workers that hang", ids="+")
    resolved = add("resolve", acting.resolve, "resolve a promise that ctx.promise made", ids="1")
    resolved.add_argument("value", nargs="?", default="null", help="JSON; null if left out")
    rejected = add("reject", acting.reject, "reject a promise that ctx.promise made", ids="1")
    rejected.add_argument("reason", help="what the awaiting code is told")
    again = add("run-again", acting.run_again, "start the call of a flow again under a new id", ids="1")
    again.add_argument("new_id")
    again.add_argument("--from-step", type=position, help="keep the calls at positions before this one")


def _add_purge(purge: ArgumentParser) -> None:
    purge.add_argument("id", nargs="?", help="of one flow")
    purge.add_argument("--older-than", type=duration, help="time since they settled: 90s, 15m, 12h, 30d, 4w")
    purge.add_argument("--state", action="append", choices=[state.value for state in SETTLED], help="may be repeated")
    purge.add_argument("--batch", type=count, default=PURGE_BATCH, help="flows in one transaction")
    purge.add_argument("--limit", type=count, help="how many flows at most")
    purge.add_argument("--dry-run", action="store_true", help="only count")
