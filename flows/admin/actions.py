"""What people may do to promises: each has a permission, is confirmed with a reason, and calls one operation."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import Truncator

from flows import operations
from flows.admin.forms import ReasonForm, RejectForm, ResolveForm, RunAgainForm
from flows.admin.markup import promise_url
from flows.domain.errors import FlowsError
from flows.domain.promise import Kind, Phase, State
from flows.models import Promise
from flows.store import trees

# Each promise is a field of the form that confirms, and Django takes a thousand.
MAX_BULK = 500
MAX_TOLD = 10
MAX_LOGGED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do. ``is_for`` says whether it makes sense for a promise; ``run`` whether it did anything.

    ``otherwise`` is why it may do nothing though nobody was faster.
    """

    name: str
    title: str
    done: str
    explanation: str
    permission: str
    is_for: Callable[[Any], bool]
    run: Callable[[str, dict[str, Any]], bool]
    otherwise: str = ""
    form: type[Form] = ReasonForm
    is_bulk: bool = True
    is_grave: bool = False
    flag: int = CHANGE

    def is_allowed(self, request: HttpRequest) -> bool:
        """Return True if the user has its permission."""
        return bool(request.user.has_perm(f"flows.{self.permission}"))


def _is_pending(promise: Any) -> bool:
    return State(promise.state_now) is State.PENDING


def _is_flow(promise: Any) -> bool:
    return promise.kind in (Kind.ROOT, Kind.DETACHED)


def _may_be_retried(promise: Any) -> bool:
    if not _is_pending(promise):
        return State(promise.state_now) is State.REJECTED and _is_flow(promise)
    phase = Phase(promise.phase)
    return phase is Phase.ASIDE or (phase is Phase.READY and bool(promise.ready_at > promise.clock))


def _waits_for_somebody(promise: Any) -> bool:
    return _is_pending(promise) and promise.kind == Kind.EXTERNAL


ACTIONS = {
    action.name: action
    for action in (
        Action(
            name="resolve",
            title="Resolve",
            done="Resolved",
            explanation="The function that waits for it goes on with this value.",
            permission="settle_promise",
            is_for=_waits_for_somebody,
            run=lambda promise_id, given: operations.resolve(promise_id, given["value"]),
            form=ResolveForm,
        ),
        Action(
            name="reject",
            title="Reject",
            done="Rejected",
            explanation="The function that waits for it sees PromiseRejected with this text.",
            permission="settle_promise",
            is_for=_waits_for_somebody,
            run=lambda promise_id, given: operations.reject(promise_id, given["error"]),
            form=RejectForm,
            is_grave=True,
        ),
        Action(
            name="retry",
            title="Retry now",
            done="Retried",
            explanation="What was set aside, or waits for its next attempt, runs now; a flow that was rejected is "
            "opened again with its failed calls. What has finished is kept.",
            permission="retry_promise",
            is_for=_may_be_retried,
            run=lambda promise_id, given: operations.retry(promise_id),
        ),
        Action(
            name="release",
            title="Release",
            done="Released",
            explanation="Takes the claim back from a node that hangs: another one runs the promise at once. What the "
            "first one still writes is refused; a step in flight runs again.",
            permission="release_promise",
            is_for=lambda promise: _is_pending(promise) and Phase(promise.phase) is Phase.CLAIMED,
            run=lambda promise_id, given: operations.release(promise_id),
        ),
        Action(
            name="run-again",
            title="Run again",
            done="Run again",
            explanation="Starts the same call as a flow of its own under a new id, from the start or from one of its "
            "calls. The first flow stays as it is.",
            permission="rerun_promise",
            is_for=lambda promise: Kind(promise.kind) is Kind.ROOT,
            run=lambda promise_id, given: bool(
                operations.run_again(promise_id, given["new_id"], from_step=given["from_step"])
            ),
            form=RunAgainForm,
            is_bulk=False,
        ),
        Action(
            name="cancel",
            title="Cancel",
            done="Canceled",
            explanation="Cancels the promise and all pending calls below it, detached ones excepted. This is final.",
            permission="cancel_promise",
            is_for=lambda promise: _is_pending(promise) and promise.kind != Kind.RUN,
            run=lambda promise_id, given: operations.cancel(promise_id) > 0,
            is_grave=True,
        ),
        Action(
            name="purge",
            title="Delete",
            done="Deleted",
            explanation="Deletes a flow that has ended, with all its calls and attempts. The same id starts a new flow "
            "afterwards. This cannot be undone.",
            permission="purge_promise",
            is_for=lambda promise: not _is_pending(promise) and _is_flow(promise),
            run=lambda promise_id, given: operations.purge_tree(promise_id) > 0,
            otherwise="Something below it is pending, or the flow that started it may still need it.",
            is_grave=True,
            flag=DELETION,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An action that somebody asks for: with what it is to be done, and what it does not fit."""

    action: Action
    model_admin: Any
    request: HttpRequest
    fit: Sequence[Any]
    unfit: Sequence[Any]


def _bulk(action: Action) -> Callable[[Any, HttpRequest, QuerySet[Promise]], HttpResponse | None]:
    def ask(model_admin: Any, request: HttpRequest, queryset: QuerySet[Promise]) -> HttpResponse | None:
        chosen = list(queryset[: MAX_BULK + 1])
        if len(chosen) > MAX_BULK:
            messages.warning(
                request, f"These are the first {MAX_BULK} of those that you chose; repeat it for the rest."
            )
        asked = _asked(action, model_admin, request, chosen[:MAX_BULK])
        if not asked.fit:
            messages.error(request, _nothing_fits(action, asked.unfit))
            return None
        return _ask(asked, action.form())

    ask.__name__ = action.name
    ask.short_description = f"{action.title} …"  # type: ignore[attr-defined]  # read by the admin
    return ask


BULK = [_bulk(action) for action in ACTIONS.values() if action.is_bulk]


def allowed(request: HttpRequest, promise: Any) -> list[Action]:
    """Return the actions that make sense for the promise and that the user may do."""
    return [action for action in ACTIONS.values() if action.is_for(promise) and action.is_allowed(request)]


def confirm_or_do(model_admin: Any, request: HttpRequest, name: str) -> HttpResponse:
    """Ask whether the action is meant, for the promises with the ids that were sent; do it once that was confirmed."""
    action = ACTIONS.get(name)
    if action is None:
        raise Http404
    if not (action.is_allowed(request) and model_admin.has_view_permission(request)):
        raise PermissionDenied
    ids = (request.POST if request.method == "POST" else request.GET).getlist("id")[:MAX_BULK]
    known = [promise_id for promise_id in ids if "\x00" not in promise_id]
    asked = _asked(action, model_admin, request, list(model_admin.get_queryset(request).filter(pk__in=known)))
    if not asked.fit:
        messages.error(request, _nothing_fits(action, asked.unfit))
        return HttpResponseRedirect(_back(asked.unfit))
    form = action.form(request.POST) if request.method == "POST" else action.form()
    return _do(asked, form) if form.is_bound and form.is_valid() else _ask(asked, form)


def _asked(action: Action, model_admin: Any, request: HttpRequest, chosen: Sequence[Any]) -> _Asked:
    fit = [promise for promise in chosen if action.is_for(promise)]
    unfit = [promise for promise in chosen if not action.is_for(promise)]
    return _Asked(action=action, model_admin=model_admin, request=request, fit=fit, unfit=unfit)


def _ask(asked: _Asked, form: Form) -> TemplateResponse:
    action = asked.action
    below = trees.count_pending_below([promise.id for promise in asked.fit]) if action.name == "cancel" else 0
    context = {
        **asked.model_admin.admin_site.each_context(asked.request),
        "title": f"{action.title}?",
        "opts": Promise._meta,  # noqa: SLF001 - Django's documented Meta API
        "action": action,
        "form": form,
        "promises": asked.fit,
        "unfit": asked.unfit,
        "below": below,
        "max_counted": trees.MAX_COUNTED,
        "back": _back(asked.fit),
        "url": reverse("admin:flows_promise_do", args=[action.name]),
    }
    return TemplateResponse(asked.request, "admin/flows/promise/confirm.html", context)


def _do(asked: _Asked, form: Form) -> HttpResponseRedirect:
    action, given = asked.action, form.cleaned_data
    done: list[Any] = []
    for promise in asked.fit:
        if missed := _miss(action, promise.id, given):
            messages.warning(asked.request, f"{promise.id}: nothing was done. {missed}")
        else:
            done.append(promise)
    if done:
        lines = (_line(name, value) for name, value in given.items() if value is not None)
        text = ". ".join([action.done, *lines])
        LogEntry.objects.log_actions(asked.request.user.pk or 0, done, action.flag, text)  # never 0: they have a right
        told = done[0].id if len(done) == 1 else f"{len(done)} promises"
        messages.success(asked.request, f"{action.done}: {told}.")
    return HttpResponseRedirect(_goes_on(action, asked.fit, done, given))


def _line(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{name.replace('_', ' ').capitalize()}: {Truncator(text).chars(MAX_LOGGED)}"


def _goes_on(action: Action, fit: Sequence[Any], done: Sequence[Any], given: dict[str, Any]) -> str:
    """Return where to go after it: what was started, or what is left."""
    if done and "new_id" in given:
        return promise_url(given["new_id"])
    return _list_url() if done and action.flag == DELETION else _back(fit)


def _miss(action: Action, promise_id: str, given: dict[str, Any]) -> str:
    """Do it; return why nothing was done, "" if something was."""
    try:
        if action.run(promise_id, given):
            return ""
        now = operations.get(promise_id)
    except FlowsError as error:
        return str(error)
    return action.otherwise or f"Meanwhile it is {now.state}{f', {now.phase}' if now.phase else ''}."


def _nothing_fits(action: Action, unfit: Sequence[Any]) -> str:
    if not unfit:
        return "There is no such promise."
    told = "; ".join(f"{promise.id} is {promise.kind}, {promise.state_now}" for promise in unfit[:MAX_TOLD])
    return f"{action.title} makes no sense here any more: {told}."


def _back(chosen: Sequence[Any]) -> str:
    return promise_url(chosen[0].id) if len(chosen) == 1 else _list_url()


def _list_url() -> str:
    return reverse("admin:flows_promise_changelist")
