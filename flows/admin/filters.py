"""What the list of promises can be narrowed down by; each is served by an index, or by names that are known."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Case, CharField, F, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django.http import HttpRequest

from flows.conf import settings
from flows.domain.promise import Kind, Phase, State
from flows.engine.registry import registry
from flows.models import MANY_FAILURES, MANY_LOSSES, NEEDS_ATTENTION, WAITS_FOR_SOMEBODY

# Past its deadline a promise is settled for everyone, whether or not somebody has written it yet.
_OVERDUE = Q(state=State.PENDING, deadline_at__lte=Now())
_IN_TIME = Q(deadline_at__gt=Now())
STATE_NOW = Case(
    When(_OVERDUE & Q(kind=Kind.TIMER), then=Value(State.RESOLVED.value)),
    When(_OVERDUE, then=Value(State.TIMEDOUT.value)),
    default=F("state"),
    output_field=CharField(),
)

ALL = "all"
# Whoever asks for these looks for calls, too, not for roots alone.
_LOOKS_FOR_CALLS = (SEARCH_VAR, "parent", "root_id", "needs")


class RoleFilter(admin.SimpleListFilter):
    """By what a promise is in its flow: roots alone, unless something is asked for that calls have, too."""

    title = parameter_name = "role"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        looks_for_calls = any(request.GET.get(name) for name in _LOOKS_FOR_CALLS)
        self._in_effect = self.value() or (ALL if looks_for_calls else Kind.ROOT.value)

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return the kinds of promises, roots first."""
        others = [(kind.value, kind.value) for kind in Kind if kind is not Kind.ROOT]
        return [(Kind.ROOT.value, "Roots only"), (ALL, "All"), *others]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Return the choices; one of them is always in effect."""
        for value, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": value == self._in_effect, "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises of the role in effect."""
        return queryset if self._in_effect == ALL else queryset.filter(kind=self._in_effect)


class StateFilter(admin.SimpleListFilter):
    """By the state as it is now."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return all states."""
        return [(state.value, f"{state.glyph} {state.value}") for state in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises of the chosen state."""
        match self.value():
            case None:
                return queryset
            case State.PENDING:
                return queryset.filter(_IN_TIME, state=State.PENDING)
            case State.TIMEDOUT:
                return queryset.filter(Q(state=State.TIMEDOUT) | _OVERDUE & ~Q(kind=Kind.TIMER))
            case State.RESOLVED:
                return queryset.filter(Q(state=State.RESOLVED) | _OVERDUE & Q(kind=Kind.TIMER))
            case other:
                return queryset.filter(state=other)


class NeedsFilter(admin.SimpleListFilter):
    """By what a pending promise needs from people."""

    title, parameter_name = "what it needs", "needs"

    _CONDITIONS = {
        "somebody": ("Somebody to settle it", WAITS_FOR_SOMEBODY),
        "attention": ("Attention", NEEDS_ATTENTION),
        "aside": ("… set aside", NEEDS_ATTENTION & Q(phase=Phase.ASIDE)),
        "noted": ("… with a note", NEEDS_ATTENTION & ~Q(note="")),
        "failing": (
            "… failed or lost often",
            NEEDS_ATTENTION & (Q(failures__gte=MANY_FAILURES) | Q(losses__gte=MANY_LOSSES)),
        ),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return what can be needed."""
        return [(name, title) for name, (title, _) in self._CONDITIONS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the pending promises that need it."""
        found = self._CONDITIONS.get(self.value() or "")
        return queryset.filter(found[1], _IN_TIME) if found else queryset


class GroupFilter(admin.SimpleListFilter):
    """By group: those that are known, as the ones in use would have to be looked for in every row."""

    title = parameter_name = "group"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return the groups of the settings and of this process's durable functions."""
        groups = {*settings.GROUPS, *(function.group for function in registry)}
        return [(group, group) for group in sorted(groups)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises of the chosen group."""
        return queryset.filter(group=self.value()) if self.value() else queryset


class FunctionFilter(admin.SimpleListFilter):
    """By function, as Celery names it: group and function."""

    title, parameter_name = "function", "call"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return this process's durable functions, and the one that is asked for."""
        known = {f"{function.group}.{function.name}" for function in registry}
        asked = request.GET.get(self.parameter_name)
        return [(name, name) for name in sorted(known | ({asked} if asked else set()))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises of the chosen function."""
        group, _, function = (self.value() or "").partition(".")
        return queryset.filter(group=group, function=function) if group else queryset


class CreatedFilter(admin.SimpleListFilter):
    """By when a promise was made."""

    title = parameter_name = "created"

    _TIMES = {
        "hour": ("In the last hour", timedelta(hours=1)),
        "day": ("In the last 24 hours", timedelta(days=1)),
        "week": ("In the last 7 days", timedelta(days=7)),
        "month": ("In the last 30 days", timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return the times."""
        return [(name, title) for name, (title, _) in self._TIMES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises made since then."""
        found = self._TIMES.get(self.value() or "")
        return queryset.filter(created_at__gte=Now() - found[1]) if found else queryset
