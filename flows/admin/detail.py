"""The page of one promise: what it is, where it stands, what it called, what happened, what it was given and gave."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote as url_quote

from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from flows import waterfall
from flows.admin import actions
from flows.admin.markup import MAX_SHOWN, NOTHING, error_block, json_text, list_url, moment, promise_link, promise_url
from flows.conf import settings
from flows.domain.durations import in_words
from flows.domain.errors import PromiseNotFound
from flows.domain.promise import LOCAL_KINDS, State
from flows.domain.timeline import standing
from flows.domain.tree import Tree, TreePromise
from flows.models import Promise
from flows.store import promises
from flows.store.trees import read_tree

MAX_LISTED = 100
PARTS = ("args", "value", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line of the history. ``after`` is the time since the promise was made."""

    at: datetime
    after: str
    what: str
    error: SafeString | None = None
    css: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A stored value as it is shown, cut if it is long."""

    title: str
    text: str
    more: int
    url: str


def show(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
    """Return the page, or the drawing alone if a live page asks for it."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    promise_id = unquote(object_id)
    try:
        return _page(model_admin, request, promise_id)
    except (PromiseNotFound, Promise.DoesNotExist):  # the latter if it was deleted between two reads
        opts = Promise._meta  # noqa: SLF001 - Django's documented Meta API
        gone: HttpResponse = model_admin._get_obj_does_not_exist_redirect(request, opts, promise_id)  # noqa: SLF001
        return gone


def download(model_admin: Any, request: HttpRequest, object_id: str, part: str) -> HttpResponse:
    """Return arguments, value or error as a file."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    if part not in PARTS:
        raise Http404
    try:
        promise = promises.get(unquote(object_id))
    except PromiseNotFound:
        raise Http404 from None
    response = HttpResponse(json_text(getattr(promise, part)), content_type="application/json")
    name = "".join(character if character.isalnum() else "-" for character in promise.id[-60:])
    response["Content-Disposition"] = f'attachment; filename="{name}-{part}.json"'
    return response


def _page(model_admin: Any, request: HttpRequest, promise_id: str) -> HttpResponse:
    tree = read_tree(promise_id)
    drawing = waterfall.lay_out(tree, path=request.path, flipped=request.GET.getlist(waterfall.FLIP), href=promise_url)
    if "HX-Request" in request.headers:
        return TemplateResponse(request, waterfall.TEMPLATE, {"waterfall": drawing})
    context = {**model_admin.admin_site.each_context(request), **_context(model_admin, request, tree)}
    return TemplateResponse(request, "admin/flows/promise/detail.html", {**context, "waterfall": drawing})


def _context(model_admin: Any, request: HttpRequest, tree: Tree) -> dict[str, Any]:
    top = tree.promises[0]
    row = model_admin.get_queryset(request).defer(None).get(pk=top.id)
    awaited = [promise for promise in tree.promises if promise.depth == 1 and promise.is_awaited]
    return {
        "title": top.id,
        "opts": Promise._meta,  # noqa: SLF001 - Django's documented Meta API
        "promise": top,
        "state": waterfall.StateLabel(glyph=top.state.glyph, word=top.state.value),
        "standing": standing(top, tree.now, len(awaited)),
        "why": top.note or top.error,
        "actions": [(each, _action_url(each.name, top.id)) for each in actions.allowed(request, row)],
        "facts": list(_facts(row, top)),
        "awaited": [(promise_link(promise.id), standing(promise, tree.now)) for promise in awaited[:MAX_LISTED]],
        "awaited_more": max(0, len(awaited) - MAX_LISTED),
        "all_calls": list_url("promise", parent=top.id),
        "attempts_url": list_url("attempt", promise=top.id),
        "happenings": _history(row, top),
        "max_listed": MAX_LISTED,
        "shown": list(_shown(row)),
        "links": list(_links(top)),
    }


def _action_url(name: str, promise_id: str) -> str:
    return reverse("admin:flows_promise_do", args=[name], query={"id": promise_id})


def _links(promise: TreePromise) -> Iterator[tuple[str, str]]:
    if promise.root_id != promise.id:
        yield "Whole flow", promise_url(promise.root_id)
    if promise.parent_id:
        yield "Caller", promise_url(promise.parent_id)
    if settings.FLOWER_URL and promise.kind not in LOCAL_KINDS:
        yield "In Flower", f"{settings.FLOWER_URL.rstrip('/')}/task/{url_quote(promise.id, safe='')}"


def _facts(row: Any, promise: TreePromise) -> Iterator[tuple[str, Any]]:
    call = f"{promise.group}.{promise.function}"
    if promise.kind not in LOCAL_KINDS:
        yield "Function", format_html('<a href="{}">{}</a>', list_url("promise", call=call, role="all"), call)
        yield "Version", row.version or "the latest, once it runs"
    else:
        yield "Name", promise.function or NOTHING
        yield "Group", promise.group
    yield "Role", promise.kind
    if promise.root_id != promise.id:
        yield "Flow", promise_link(promise.root_id)
    if promise.parent_id:
        position = format_html(" · call {}", promise.position)
        yield "Called by", format_html("{}{}", promise_link(promise.parent_id), position)
    if promise.addressee:
        yield "Only for node", promise.addressee
    if promise.node:
        yield "Held by", f"{promise.node}, pid {row.session >> 9}" if row.session is not None else promise.node
    yield "Created", moment(promise.created_at)
    yield "Deadline", moment(promise.deadline_at)
    if promise.settled_at:
        yield "Settled", moment(promise.settled_at)
    if row.tags:
        yield "Tags", format_html_join(" ", '<span class="fl-tag">{}: {}</span>', sorted(row.tags.items()))
    if row.retry:
        yield "Retry policy", format_html("<code>{}</code>", json_text(row.retry))
    if row.sends:
        last = f"last {moment(row.sent_at)}" if row.sent_at else "next when the broker is back"
        yield "Sent again", f"{row.sends} times, {last}"


def _history(row: Any, promise: TreePromise) -> list[Happening]:
    """Return what happened, oldest first: at most the last attempts and the last things that people did."""
    return sorted(
        [*_milestones(row, promise), *_attempts(promise), *_doings(promise)], key=lambda happening: happening.at
    )


def _milestones(row: Any, promise: TreePromise) -> Iterator[Happening]:
    def happened(at: datetime, what: str, css: str = "") -> Happening:
        return Happening(at=at, after=_after(promise, at), what=what, css=css)

    yield happened(promise.created_at, "called" if promise.parent_id else "started")
    if row.reopened_at:
        yield happened(row.reopened_at, "opened again by a retry")
    if promise.settled_at:
        glyph, state = promise.state.glyph, promise.state
        yield happened(promise.settled_at, f"{glyph} {state}", "" if state is State.RESOLVED else "fl-bad")


def _attempts(promise: TreePromise) -> Iterator[Happening]:
    for each in promises.attempts(promise.id, MAX_LISTED):
        where = f" on {each['node']}, pid {each['pid']}" if each["node"] else ""
        took = f" after {in_words(each['ended_at'] - each['started_at'])}" if each["ended_at"] else ""
        yield Happening(
            at=each["started_at"],
            after=_after(promise, each["started_at"]),
            what=f"attempt {each['fence']}{where}: {each['outcome'] if took else 'runs'}{took}",
            error=error_block(each["error"]),
            css="fl-bad" if each["outcome"] in ("rejected", "failed", "lost", "fenced", "aside") else "",
        )


def _doings(promise: TreePromise) -> Iterator[Happening]:
    entries = LogEntry.objects.filter(
        content_type__app_label="flows", content_type__model="promise", object_id=promise.id
    ).select_related("user")
    for entry in entries.order_by("-action_time")[:MAX_LISTED]:
        what = f"{entry.get_change_message()} ({entry.user.get_username()})"
        yield Happening(at=entry.action_time, after=_after(promise, entry.action_time), what=what, css="fl-person")


def _after(promise: TreePromise, at: datetime) -> str:
    return f"+{in_words(max(at, promise.created_at) - promise.created_at)}"


def _shown(row: Any) -> Iterator[Shown]:
    titles = {"args": "Arguments", "value": "Value", "error": "Error"}
    parts: Sequence[str] = ["args"]
    if row.state == State.RESOLVED:
        parts = ["args", "value"]
    elif row.error is not None:
        parts = ["args", "error"]
    for part in parts:
        text = _with_lines(getattr(row, part)) if part == "error" else json_text(getattr(row, part))
        url = reverse("admin:flows_promise_download", args=[quote(row.pk), part])
        yield Shown(title=titles[part], text=text[:MAX_SHOWN], more=max(0, len(text) - MAX_SHOWN), url=url)


def _with_lines(error: dict[str, Any]) -> str:
    """Return an error as Python would print it, causes first."""
    cause = f"{_with_lines(error['cause'])}\n\nwhich led to\n\n" if error["cause"] else ""
    return f"{cause}{error['traceback'].rstrip() or error['type'] + ': ' + error['message']}"
