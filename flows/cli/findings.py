"""What the doctor finds: each finding says what is so, whether that is a trouble, and what to do about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flows.cli.words import ago
from flows.conf import settings
from flows.domain.durations import in_words
from flows.engine.registry import registry
from flows.queues import read_queues
from flows.store import diagnosis
from flows.store.overview import Overview, read_overview
from flows.store.sql import Row

# A sweep is stale after so many of its pauses.
LATE_SWEEPS = 10
# Ready for longer than this, with a live node and an empty queue: nobody sent a message.
UNSENT_AFTER_SWEEPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``kind`` is a word for machines. A finding that is no trouble waits as it should. ``examples`` are lines."""

    kind: str
    what: str
    advice: str = ""
    is_trouble: bool = True
    examples: tuple[str, ...] = ()


def examine_all() -> list[Finding]:
    """Return everything that is found."""
    numbers = read_overview()
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _server,
        lambda: _sweep(numbers),
        lambda: _unserved(numbers),
        lambda: _broker(numbers),
        _sessions,
        _aside,
        _without_code,
        _versions,
        _nobody_there,
        lambda: _losses(numbers),
        _delayed,
        _external,
    )
    return [finding for look in looks for finding in look()]


def _server() -> Iterator[Finding]:
    server = diagnosis.server()
    if server["is_read_only"]:
        yield Finding(
            kind="read_only",
            what="PostgreSQL is read-only: nothing starts, goes on or ends.",
            advice="Point DATABASES at the primary, or end its read-only mode.",
        )
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        if server[name] == "off":
            yield Finding(
                kind="not_durable",
                what=f"PostgreSQL runs with {name} = off: what was answered as done may be gone after a crash.",
                advice=f"Set {name} = on. What may be lost the library commits asynchronously by itself.",
            )
    if server["isolation"] != "read committed":
        yield Finding(
            kind="isolation",
            what=f"Transactions are {server['isolation']} by default: claims and joins would fail or miss rows.",
            advice="Set default_transaction_isolation to 'read committed', and no other isolation_level in DATABASES.",
        )


def _sweep(numbers: Overview) -> Iterator[Finding]:
    if not numbers.nodes:
        yield Finding(
            kind="no_nodes",
            what="No worker is alive: nothing goes on.",
            advice="Start the workers, under a supervisor that starts them again.",
        )
        return
    late = LATE_SWEEPS * settings.SWEEP_EVERY
    if numbers.swept_at is None or numbers.now - numbers.swept_at > late:
        last = "never" if numbers.swept_at is None else ago(numbers.swept_at, numbers.now)
        yield Finding(
            kind="stale_sweep",
            what=f"Workers are alive, and the last sweep was {last}: what is lost or due is not found.",
            advice="Look for `flows-sweep failed` in the workers' logs; restart a worker if there is nothing.",
        )


def _unserved(numbers: Overview) -> Iterator[Finding]:
    for group in numbers.groups:
        if group.is_unserved:
            waits = group.ready + group.delayed + group.claimed + group.suspended
            oldest = f", the oldest ready for {in_words(numbers.now - group.oldest_at)}" if group.oldest_at else ""
            yield Finding(
                kind="unserved",
                what=f"Group {group.group} has {waits:,} pending {_calls(waits)} and no live worker{oldest}.",
                advice=f"Start one: celery -A <your app> worker -Q {group.group}",
                examples=(group.oldest_id,) if group.oldest_id else (),
            )


def _broker(numbers: Overview) -> Iterator[Finding]:
    queues = read_queues([group.group for group in numbers.groups])
    if queues.trouble:
        yield Finding(
            kind="broker_away",
            what=f"The broker does not answer: {queues.trouble}.",
            advice="Bring it back. Nothing is lost: what is due is then sent again by the sweep.",
        )
        return
    patience = UNSENT_AFTER_SWEEPS * settings.SWEEP_EVERY
    for group in numbers.groups:
        is_waiting = group.oldest_at is not None and numbers.now - group.oldest_at > patience
        if not group.nodes or not is_waiting:
            continue
        messages = queues.lengths.get(group.group, 0)
        waited = in_words(numbers.now - group.oldest_at) if group.oldest_at else ""
        busy = f"{group.claimed:,} {_calls(group.claimed)} run, {messages:,} messages wait"
        yield Finding(
            kind="slow_group",
            what=f"Group {group.group}: {group.ready:,} ready {_calls(group.ready)}, the oldest for {waited}; {busy}.",
            advice="Too few workers, or all of them hang: start more, look at what runs (flows list --phase claimed), "
            "and take claims back from what hangs (flows release <id>).",
            examples=(group.oldest_id,) if group.oldest_id else (),
        )


def _sessions() -> Iterator[Finding]:
    if not settings.SESSION_LOCKS:
        yield Finding(
            kind="no_session_locks",
            what="SESSION_LOCKS is off: a pool process that dies while its node lives is found by nobody.",
            advice="Turn it on, and connect workers to PostgreSQL itself, if that is possible.",
            is_trouble=False,
        )
        return
    sessions = diagnosis.sessions()
    pooler = "Connect workers to PostgreSQL itself or through a pooler in session mode, or set SESSION_LOCKS = False."
    if sessions["shared"]:
        yield Finding(
            kind="shared_sessions",
            what=f"{sessions['shared']} database sessions hold the locks of several nodes: a pooler shares them.",
            advice=f"{pooler} Behind such a pooler prepare_threshold must be None, too.",
        )
    if sessions["unlocked"]:
        yield Finding(
            kind="unlocked_claims",
            what=f"{len(sessions['unlocked'])} running calls are held by live nodes without their session locks.",
            advice=f"The next sweep takes them back. If this stays: {pooler}",
            examples=tuple(f"{promise_id} on {node}" for promise_id, node in sessions["unlocked"]),
        )


def _aside() -> Iterator[Finding]:
    found = diagnosis.set_aside()
    if found:
        yield Finding(
            kind="aside",
            what=f"{_up_to(found)} {_calls(len(found))} {_are(found)} set aside: the code no longer makes the recorded "
            "calls.",
            advice="Deploy code that does, then flows retry <id>; or flows run-again <id> <new id> --from-step <N>; "
            "or flows cancel <id>.",
            examples=tuple(f"{row['id']}  {row['note']}" for row in found),
        )


def _without_code() -> Iterator[Finding]:
    found = diagnosis.without_code()
    if found:
        yield Finding(
            kind="no_code",
            what=f"{_up_to(found)} {_calls(len(found))} {_wait(found)} for a worker that knows the function, or its "
            "version.",
            advice="Deploy it to the workers of the group. Until then these calls are tried again now and then.",
            examples=tuple(f"{row['id']}  {row['note']}" for row in found),
        )


def _versions() -> Iterator[Finding]:
    for row in diagnosis.versions():
        if not registry.has_group(row["group"]):
            continue
        name = f"{row['group']}.{row['function']}"
        calls = f"{row['count']:,} {_calls(row['count'])} of {name}"
        known = registry.find(row["group"], row["function"], row["version"])
        latest = registry.find(row["group"], row["function"])
        if known is None:
            yield Finding(
                kind="unknown_version",
                what=f"{calls} {'are' if row['count'] > 1 else 'is'} pinned to version {row['version']}, which this "
                "code has not.",
                advice="Keep the old version registered until none of its calls is pending.",
            )
        elif latest is not None and latest.version > row["version"]:
            yield Finding(
                kind="old_version",
                what=f"{calls} still {'run' if row['count'] > 1 else 'runs'} as version {row['version']}; the latest "
                f"is {latest.version}.",
                advice="Keep the old version until they have ended.",
                is_trouble=False,
            )


def _nobody_there() -> Iterator[Finding]:
    found = diagnosis.nobody_there()
    if found:
        yield Finding(
            kind="node_gone",
            what=f"{_up_to(found)} {_calls(len(found))} {_wait(found)} for one node each, which is not alive.",
            advice="A node of that name must come back (a process id never does), or cancel them.",
            examples=tuple(f"{row['id']} for {row['group']}/{row['addressee']}" for row in found),
        )


def _losses(numbers: Overview) -> Iterator[Finding]:
    found = diagnosis.losing()
    if found:
        yield Finding(
            kind="losing",
            what=f"{_up_to(found)} {_calls(len(found))} lost {'their' if len(found) > 1 else 'its'} worker in the last "
            f"attempt; after {settings.MAX_LOSSES} in a row a call is rejected.",
            advice="Find out what kills the workers: memory, a crash in C code, a hard time limit.",
            examples=tuple(f"{row['id']}  {row['losses']} in a row" for row in found),
        )
    if numbers.lost or numbers.fenced:
        yield Finding(
            kind="broken_off",
            what=f"In the last hour {numbers.lost:,} attempts were lost with their workers, and {numbers.fenced:,} "
            "overtaken.",
            advice="Normal after a deployment or a crash; otherwise look for killed or frozen processes.",
            is_trouble=False,
        )


def _delayed() -> Iterator[Finding]:
    found = diagnosis.delayed()
    if found:
        yield Finding(
            kind="delayed",
            what=f"{_up_to(found)} {_calls(len(found))} failed and {_wait(found)} for the next attempt.",
            advice="They run by themselves; flows retry <id> runs one now.",
            is_trouble=False,
            examples=tuple(
                f"{row['id']}  {row['failures']} failed, next {ago(row['ready_at'], row['now'])}  {row['note']}"
                for row in found
            ),
        )


def _external() -> Iterator[Finding]:
    found = diagnosis.external()
    if found:
        yield Finding(
            kind="external",
            what=f"{_up_to(found)} {'promises' if len(found) > 1 else 'promise'} {_wait(found)} for somebody outside.",
            advice="flows resolve <id> <JSON>, or flows reject <id> <reason>.",
            is_trouble=False,
            examples=tuple(
                f"{row['id']}  {row['function']}, asked {ago(row['created_at'], row['now'])}, times out "
                f"{ago(row['deadline_at'], row['now'])}"
                for row in found
            ),
        )


def _up_to(found: list[Row]) -> str:
    return f"{len(found):,}{' or more' if len(found) == diagnosis.MAX_FOUND else ''}"


def _calls(count: int) -> str:
    return "call" if count == 1 else "calls"


def _are(found: list[Row]) -> str:
    return "is" if len(found) == 1 else "are"


def _wait(found: list[Row]) -> str:
    return "waits" if len(found) == 1 else "wait"
