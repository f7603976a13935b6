"""What all lists share: read-only, searched by prefix, paged without reading a large table."""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from flows.admin.markup import moment

MAX_COUNTED = 10_000


def shown_time(field: str) -> Callable[[Any, Any], str]:
    """Return a column or line that shows a time of the row."""

    @admin.display(description=field.replace("_", " "), ordering=field)
    def show(model_admin: Any, row: Any) -> str:
        return moment(getattr(row, field))

    return show


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in its stubs only
    """Counts, and pages through, up to 10,000 rows: neither a long count nor a deep page is ever asked for."""

    @cached_property
    def count(self) -> int:
        """Return how many rows there are to be paged through."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin pages querysets
        return rows.order_by().values("pk")[:MAX_COUNTED].count()


class CompletedList(ChangeList):
    """A page of rows, with what the admin adds to each from elsewhere."""

    model_admin: "ReadOnlyAdmin"

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.model_admin.complete(self.result_list)


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

    def complete(self, shown: Sequence[Any]) -> None:
        """Add to the rows of a page what stands elsewhere: nothing, if not overridden."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class of the page of the list."""
        return CompletedList

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
