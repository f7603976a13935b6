"""What holds of the promises after every operation: rules of one row, rules of its changes, and nothing that gets lost.

Each is a function of the table, written apart from the store that it judges.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flows.domain.promise import LOCAL_KINDS, Kind, Phase, State
from flows.engine.decision import Suspended
from flows.store.claims import Claim, Holder
from tests.simulation.store import Store
from tests.simulation.table import InvariantError, Record

Rows = Mapping[str, Record]

# What a call is, for ever.
_CALL = (
    "root_id",
    "parent_id",
    "position",
    "kind",
    "group",
    "addressee",
    "function",
    "args",
    "digest",
    "retry",
    "tags",
)
_MANY = 10_000


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What the rules know: the rows ``before`` the last operation, which ``reopens`` or does not, and those after it.

    ``claims`` are all that were ever given, ``awaits`` what each promise was suspended on last. ``twin`` is an empty
    store, to try in what could be done next.
    """

    twin: Store
    now: datetime
    before: Rows
    rows: Rows
    reopens: bool
    claims: Sequence[Claim]
    awaits: Mapping[str, Suspended]


def check(moment: Moment) -> None:
    """Raise ``InvariantError`` for all that is broken."""
    broken = [*_broken(moment.rows), *_changed(moment), *_doubly_claimed(moment), *_lost(moment)]
    if broken:
        raise InvariantError("\n".join(broken))


def copied(rows: Rows) -> dict[str, Record]:
    """Return the rows as they are now."""
    return {id: replace(row) for id, row in rows.items()}


# --- one row ---


def _settled_once(row: Record, rows: Rows) -> bool:
    is_pending = row.state is State.PENDING
    return is_pending == (row.settled_at is None) and (is_pending or row.phase is Phase.NONE)


def _with_the_outcome_of_its_state(row: Record, rows: Rows) -> bool:
    match row.state:
        case State.RESOLVED:
            return row.value is not None and row.error is None
        case State.REJECTED:
            return row.value is None and row.error is not None
    return row.value is None


def _held_if_claimed(row: Record, rows: Rows) -> bool:
    held_by = (row.node_id, row.session)
    return None not in held_by and row.fence > 0 if row.phase is Phase.CLAIMED else held_by == (None, None)


def _somewhere(row: Record, rows: Rows) -> bool:
    is_run_by_workers = row.state is State.PENDING and row.kind not in LOCAL_KINDS
    return is_run_by_workers == (row.phase is not Phase.NONE)


def _ready_from_some_time_on(row: Record, rows: Rows) -> bool:
    return row.state is not State.PENDING or (row.phase in (Phase.READY, Phase.CLAIMED)) == (row.ready_at is not None)


def _within_its_parents_deadline(row: Record, rows: Rows) -> bool:
    if row.parent_id is None or row.kind is Kind.DETACHED:
        return True
    return row.deadline_at <= rows[row.parent_id].deadline_at


_RULES: tuple[Callable[[Record, Rows], bool], ...] = (
    _settled_once,
    _with_the_outcome_of_its_state,
    _held_if_claimed,
    _somewhere,
    _ready_from_some_time_on,
    _within_its_parents_deadline,
)


def _broken(rows: Rows) -> Iterator[str]:
    for row in rows.values():
        for rule in _RULES:
            if not rule(row, rows):
                yield f"{row.id} is not {rule.__name__.strip('_').replace('_', ' ')}: {row}"


# --- from one moment to the next ---


def _changed(moment: Moment) -> Iterator[str]:
    """Find what no operation may change, and what only ``reopen`` may."""
    for id, old in moment.before.items():
        new = moment.rows.get(id)
        if new is None:
            yield f"{id} is gone"
            continue
        is_claimed_now = new.phase is Phase.CLAIMED and old.phase is not Phase.CLAIMED
        is_back = moment.reopens and new.state is State.PENDING and old.state not in (State.PENDING, State.RESOLVED)
        if any(getattr(old, column) != getattr(new, column) for column in _CALL):
            yield f"{id} is another call: {old} became {new}"
        if new.fence != old.fence + is_claimed_now:
            yield f"the fence of {id} went from {old.fence}, {old.phase}, to {new.fence}, {new.phase}"
        if old.state is not State.PENDING and old != new and not is_back:
            yield f"{id} had settled: {old} became {new}"
        if old.deadline_at != new.deadline_at and not is_back:
            yield f"the deadline of {id} went from {old.deadline_at} to {new.deadline_at}"


def _doubly_claimed(moment: Moment) -> Iterator[str]:
    given = {(claim.invocation.id, claim.fence): claim.holder for claim in moment.claims}
    if len(given) < len(moment.claims):
        yield f"a token was given out twice: {sorted((claim.invocation.id, claim.fence) for claim in moment.claims)}"
    for row in moment.rows.values():
        holder = given.get((row.id, row.fence))
        if row.phase is Phase.CLAIMED and (holder is None or (row.node_id, row.session) != _session(holder)):
            yield f"{row.id} is claimed by none whom it was given: {row}"


def _session(holder: Holder) -> tuple[int, int]:
    return holder.node_id, holder.session


# --- nothing gets lost ---


def _lost(moment: Moment) -> Iterator[str]:
    """Find what could go on and is found neither by ``join_missed``, nor by ``take_unsent``, nor by a claim."""
    twin, now = moment.twin, moment.now
    for row in moment.rows.values():
        twin.table.insert(replace(row))
    rows = twin.table.rows
    may_go_on = {
        row.id for row in rows.values() if row.phase is Phase.SUSPENDED and _has_what(moment.awaits[row.id], rows)
    }
    if (woken := {ref.id for ref in twin.join_missed(_MANY)}) != may_go_on:
        yield f"may go on: {sorted(may_go_on)}; found by join_missed: {sorted(woken)}"

    ready = [row for row in rows.values() if row.phase is Phase.READY and row.ready_at and row.ready_at <= now]
    for row in ready:
        row.sent_at = None
    groups, addressees = {row.group for row in ready}, {row.addressee for row in ready}
    taken = twin.take_unsent(sorted(groups), sorted(addressees), _MANY)
    if unsent := {row.id for row in ready} - {ref.id for ref in taken}:
        yield f"ready, and not sent again: {sorted(unsent)}"
    if hidden := [row.id for row in ready if row.deadline_at > now and not _is_claimed_at_last(twin, row)]:
        yield f"ready, and not to be claimed: {hidden}"


def _has_what(decision: Suspended, rows: Rows) -> bool:
    settled = [rows[id].state is not State.PENDING for id in decision.awaits]
    return any(settled) if decision.first else all(settled)


def _is_claimed_at_last(twin: Store, row: Record) -> bool:
    """Claim as drains do, again and again."""
    holder = Holder(node_id=1, session=1, addresses=(row.addressee,))
    while row.phase is Phase.READY and twin.claim_ready(row.group, [row.function], _MANY, holder)[0]:
        pass
    return row.phase is Phase.CLAIMED
