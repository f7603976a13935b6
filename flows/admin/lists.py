"""What all lists share: read-only, searched by prefix, filtered and paged without reading a large table."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR
from django.core.paginator import Paginator
from django.db.models import Case, CharField, F, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.functional import cached_property

from flows.admin.markup import moment
from flows.conf import settings
from flows.domain.promise import Kind, State
from flows.engine.registry import registry
from flows.store import sql

MAX_COUNTED = 10_000

# Past its deadline a promise is settled for everyone, whether or not somebody has written it yet.
_OVERDUE = Q(state=State.PENDING, deadline_at__lte=Now())
STATE_NOW = Case(
    When(_OVERDUE & Q(kind=Kind.TIMER), then=Value(State.RESOLVED.value)),
    When(_OVERDUE, then=Value(State.TIMEDOUT.value)),
    default=F("state"),
    output_field=CharField(),
)


def shown_time(field: str) -> Callable[[Any, Any], str]:
    """Return a column or line that shows a time of the row."""

    @admin.display(description=field.replace("_", " "), ordering=field)
    def show(model_admin: Any, row: Any) -> str:
        return moment(getattr(row, field))

    return show


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in its stubs only
    """Never counts a large table: all of it by PostgreSQL's estimate, a part of it up to 10,000."""

    @cached_property
    def count(self) -> int:
        """Return how many rows there are to be paged through."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin pages querysets
        if not rows.query.where:
            estimate = sql.estimated_count(rows.model._meta.db_table)  # noqa: SLF001 - Django's documented Meta API
            if estimate > MAX_COUNTED:
                return estimate
        return rows.order_by().values("pk")[:MAX_COUNTED].count()


class StateFilter(admin.SimpleListFilter):
    """By the state as it is now."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return all states."""
        return [(state.value, state.value) for state in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the promises of the chosen state."""
        match self.value():
            case None:
                return queryset
            case State.PENDING:
                return queryset.filter(state=State.PENDING, deadline_at__gt=Now())
            case State.TIMEDOUT:
                return queryset.filter(Q(state=State.TIMEDOUT) | _OVERDUE & ~Q(kind=Kind.TIMER))
            case State.RESOLVED:
                return queryset.filter(Q(state=State.RESOLVED) | _OVERDUE & Q(kind=Kind.TIMER))
            case other:
                return queryset.filter(state=other)


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


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in its stubs only
    """Shows rows; adds, changes and deletes none."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: promises are started by calls."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a row is written by the store alone."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a checkpoint that is gone would run again."""
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row, or None; what PostgreSQL cannot even compare is no row's id."""
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find what begins with ``search_term``, in the order of the column that is searched: an exact match first."""
        (lookup,) = self.get_search_fields(request)
        if not search_term:
            return queryset, False
        found = queryset.filter(**{str(lookup): search_term.strip()})
        if ORDER_VAR not in request.GET:
            found = found.order_by(str(lookup).removesuffix("__startswith"), "pk")
        return found, False
