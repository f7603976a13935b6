"""A call tree drawn over time, as plain data for a template: one row a promise, positions in percent of the time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from urllib.parse import urlencode

from flows.domain.durations import in_words
from flows.domain.promise import AttemptOutcome, Kind, State
from flows.domain.timeline import Event, Mark, Spent, in_one_line, marks, spans, standing
from flows.domain.tree import Branch, Siblings, Tree, TreePromise, fold

# The name of the query parameter with what was folded or unfolded by hand.
FLIP = "flip"
TEMPLATE = "flows/waterfall.html"
# Beyond it levels are told by their number only.
MAX_INDENT = 12
MAX_MARKS = 50
# A page asks again after so many seconds, and more rarely once nothing has happened for a while.
POLL_S = 1
SLOW_POLL_S = 5
QUIET = timedelta(minutes=1)

_STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_200, 1_800),
    *(3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000, 31_536_000),
)
_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A span to be drawn; ``x`` and ``width`` are percentages, ``css`` names what was done."""

    css: str
    x: str
    width: str
    end: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A mark to be drawn at ``x`` percent."""

    css: str
    x: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLabel:
    """A state as glyph and word, with a count where many share one row."""

    glyph: str
    word: str
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. ``flip_url`` is empty if nothing can be folded; ``told`` is the drawing in words."""

    key: str
    level: int
    call: str
    kind: Kind
    promise: TreePromise
    count: int
    url: str
    flip_url: str
    is_open: bool
    states: tuple[StateLabel, ...]
    standing: str
    note: str
    attempts: str
    began: str
    took: str
    bars: tuple[Bar, ...]
    dots: tuple[Dot, ...]
    told: str

    @property
    def indent(self) -> int:
        """How far it is moved to the right."""
        return min(self.level, MAX_INDENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """The whole drawing. ``poll_s`` is None once everything in it has settled."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[str, str], ...]
    states: tuple[StateLabel, ...]
    size: int
    took: str
    is_cut: bool
    url: str
    poll_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    start: datetime
    length: timedelta

    def percent(self, at: datetime) -> float:
        return max(0.0, min(100.0, 100 * ((at - self.start) / self.length)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What all rows need: where they stand, and what was flipped."""

    path: str
    flipped: frozenset[str]
    href: Callable[[str], str]
    now: datetime
    scale: _Scale

    def url(self, flipped: Iterable[str]) -> str:
        query = urlencode([(FLIP, each) for each in sorted(flipped)])
        return f"{self.path}?{query}" if query else self.path

    def flip(self, name: str) -> str:
        return self.url(self.flipped ^ {name})


def lay_out(tree: Tree, *, path: str, flipped: Collection[str], href: Callable[[str], str]) -> Waterfall:
    """Return ``tree`` as rows. ``path`` is the page's own, ``href`` gives the address of a promise."""
    scale = _scale(tree)
    page = _Page(path=path, flipped=frozenset(flipped), href=href, now=tree.now, scale=scale)
    return Waterfall(
        rows=tuple(_rows(fold(tree.promises), page)),
        ticks=tuple(_ticks(scale)),
        states=_counted(promise.state for promise in tree.promises),
        size=len(tree.promises),
        took=in_words(scale.length),
        is_cut=tree.is_cut,
        url=page.url(flipped),
        poll_s=_poll_s(tree),
    )


def _scale(tree: Tree) -> _Scale:
    start = min(promise.created_at for promise in tree.promises)
    end = max(_end(promise, tree.now) for promise in tree.promises)
    return _Scale(start=start, length=max(end - start, timedelta(milliseconds=1)))


def _end(promise: TreePromise, now: datetime) -> datetime:
    return promise.settled_at or now


def _poll_s(tree: Tree) -> int | None:
    if not tree.is_live:
        return None
    times = [at for each in tree.promises for at in (each.created_at, each.claimed_at, each.settled_at) if at]
    return POLL_S if tree.now - max(times) < QUIET else SLOW_POLL_S


def _ticks(scale: _Scale) -> Iterator[tuple[str, str]]:
    length_s = scale.length.total_seconds()
    step_s = next((step for step in _STEPS_S if length_s / step <= _TICKS), _STEPS_S[-1])
    for number in range(int(length_s / step_s) + 1):
        yield f"{100 * number * step_s / length_s:.3f}", in_words(timedelta(seconds=number * step_s))


def _rows(top: Branch, page: _Page) -> Iterator[Row]:
    # Not recursive: a flow may be deeper than Python's stack.
    ahead: list[tuple[Branch | Siblings, int]] = [(top, 0)]
    while ahead:
        each, level = ahead.pop()
        below: Sequence[Branch | Siblings]
        if isinstance(each, Siblings):
            name, below, is_open = f"{each.first.id}*", each.branches, f"{each.first.id}*" in page.flipped
            yield _siblings_row(each, level, page, name=name)
        else:
            name, below, is_open = each.promise.id, each.below, each.promise.id not in page.flipped
            yield _row(each, level, page, name=name)
        if is_open:
            ahead += [(one, level + 1) for one in reversed(below)]


def _row(branch: Branch, level: int, page: _Page, *, name: str) -> Row:
    promise = branch.promise
    waited_for = sum(one.is_awaited for each in branch.below for one in _promises(each))
    return Row(
        key=_key(name),
        level=level,
        call=_call(promise),
        kind=promise.kind,
        promise=promise,
        count=1,
        url=page.href(promise.id),
        flip_url=page.flip(name) if branch.below else "",
        is_open=name not in page.flipped,
        states=(StateLabel(glyph=promise.state.glyph, word=promise.state.value),),
        standing=standing(promise, page.now, waited_for),
        note=promise.note or promise.error,
        attempts=_attempts(promise),
        began=_after(page, promise.created_at),
        took="" if promise.kind is Kind.RUN else _took(promise.created_at, _end(promise, page.now)),
        bars=tuple(_bars(promise, page)),
        dots=tuple(_dots(marks(promise)[-MAX_MARKS:], page)),
        told=in_one_line(promise, page.now),
    )


def _siblings_row(siblings: Siblings, level: int, page: _Page, *, name: str) -> Row:
    promises = [branch.promise for branch in siblings.branches]
    begun_at = min(promise.created_at for promise in promises)
    ended_at = max(_end(promise, page.now) for promise in promises)
    all_marks = [mark for promise in promises for mark in marks(promise) if mark.event is not Event.STEP]
    states = _counted(promise.state for promise in promises)
    told = ", ".join(f"{label.count} {label.word}" for label in states)
    return Row(
        key=_key(name),
        level=level,
        call=_call(siblings.first),
        kind=siblings.first.kind,
        promise=siblings.first,
        count=len(promises),
        url="",
        flip_url=page.flip(name),
        is_open=name in page.flipped,
        states=states,
        standing="",
        note=next((promise.error for promise in promises if promise.error), ""),
        attempts=str(sum(len(promise.attempts) for promise in promises)),
        began=_after(page, begun_at),
        took=_took(begun_at, ended_at),
        bars=(_bar("extent", begun_at, ended_at, page, title=f"{len(promises)} calls: {told}"),),
        dots=tuple(_dots(all_marks[:MAX_MARKS], page)),
        told=f"{told}, {_took(begun_at, ended_at)} in all",
    )


def _took(begun_at: datetime, ended_at: datetime) -> str:
    # A promise that was born settled is dated by its statement, and its end by the transaction, which began before.
    return in_words(max(ended_at - begun_at, timedelta(0)))


def _after(page: _Page, at: datetime) -> str:
    return f"+{_took(page.scale.start, at)}"


def _promises(each: Branch | Siblings) -> Iterator[TreePromise]:
    return (branch.promise for branch in ((each,) if isinstance(each, Branch) else each.branches))


def _call(promise: TreePromise) -> str:
    return promise.function or promise.kind.value


def _attempts(promise: TreePromise) -> str:
    made = promise.attempts[-1].fence if promise.attempts else 0
    running = promise.fence if promise.claimed_at and not promise.settled_at and promise.fence > made else made
    outcomes = [attempt.outcome for attempt in promise.attempts]
    failed = max(promise.failures, outcomes.count(AttemptOutcome.FAILED))
    troubles = ((failed, "failed"), (outcomes.count(AttemptOutcome.LOST), "lost"))
    return ", ".join([str(running or "-"), *(f"{number} {word}" for number, word in troubles if number)])


def _bars(promise: TreePromise, page: _Page) -> Iterator[Bar]:
    for span in spans(promise, page.now):
        title = f"{span.spent}, {in_words(span.duration)}"
        yield _bar(css(span.spent), span.begun_at, span.ended_at, page, title=title)


def _bar(css: str, begun_at: datetime, ended_at: datetime, page: _Page, *, title: str) -> Bar:
    start, end = page.scale.percent(begun_at), page.scale.percent(ended_at)
    return Bar(css=css, x=f"{start:.3f}", width=f"{end - start:.3f}", end=f"{end:.3f}", title=title)


def _dots(found: Iterable[Mark], page: _Page) -> Iterator[Dot]:
    for mark in found:
        yield Dot(css=css(mark.event), x=f"{page.scale.percent(mark.at):.3f}", title=mark.text)


def css(word: Spent | Event) -> str:
    """Return the name that style sheets have for a word."""
    return word.value.replace(" ", "-")


def _counted(states: Iterable[State]) -> tuple[StateLabel, ...]:
    found = list(states)
    counts = ((state, found.count(state)) for state in State)
    return tuple(StateLabel(glyph=state.glyph, word=state.value, count=count) for state, count in counts if count)


def _key(name: str) -> str:
    # Ids hold characters that mean something in selectors.
    return blake2b(name.encode(), digest_size=6).hexdigest()
