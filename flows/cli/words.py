"""How promises look on a screen: one glyph and one colour for each state and phase."""

from datetime import datetime, timedelta

from rich.text import Text

from flows.domain.durations import in_words
from flows.domain.promise import Phase, State

_STATE_STYLES = {
    State.PENDING: "yellow",
    State.RESOLVED: "green",
    State.REJECTED: "red",
    State.CANCELED: "dim",
    State.TIMEDOUT: "magenta",
}
_PHASES = {Phase.READY: "ready", Phase.CLAIMED: "running", Phase.SUSPENDED: "suspended", Phase.ASIDE: "set aside"}
_PHASE_STYLES = {Phase.CLAIMED: "cyan", Phase.ASIDE: "bold red"}


def style_of(state: State, phase: Phase = Phase.NONE) -> str:
    """Return the colour of a promise."""
    return _PHASE_STYLES.get(phase, _STATE_STYLES[state])


def glyph(state: State, phase: Phase = Phase.NONE) -> Text:
    """Return the one character that stands for a state."""
    return Text(state.glyph, style=style_of(state, phase))


def state(state: State, phase: Phase) -> Text:
    """Return a state with its glyph, and with its phase while it is pending."""
    word = _PHASES.get(phase, str(state)) if state is State.PENDING else str(state)
    return Text(f"{state.glyph} {word}", style=style_of(state, phase))


def ago(then: datetime | None, now: datetime) -> str:
    """Return how long ago something was, or in how long it will be."""
    if then is None:
        return ""
    return f"in {in_words(then - now)}" if then > now else f"{in_words(max(now - then, timedelta(0)))} ago"


def took(began: datetime, ended: datetime | None, now: datetime) -> str:
    """Return how long something took, or has taken so far."""
    return in_words(max((ended or now) - began, timedelta(0)))
