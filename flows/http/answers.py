"""The answer of a route that starts a flow and waits for its value."""

from http import HTTPStatus
from typing import Any

from django.http import JsonResponse
from django.urls import reverse

from flows.domain.errors import ResultTimeout
from flows.handle import Handle
from flows.http.problem_types import RETRY_AFTER_S
from flows.http.requests import Preference
from flows.operations import get, in_thread


async def answer(handle: Handle[Any], preferred: Preference) -> JsonResponse:
    """Wait for the flow as long as the client prefers: 200 with its value as ``message``, or 202 with its location.

    Raises ``PromiseRejected``, ``PromiseTimedOut`` or ``PromiseCanceled`` as the promise settled.
    """
    try:
        response = JsonResponse({"message": await _outcome(handle.id, preferred.wait_s)})
    except ResultTimeout:
        response = JsonResponse({"id": handle.id, "state": "pending"}, status=HTTPStatus.ACCEPTED)
        response["Location"] = reverse("flows:promise", args=[handle.id])
        response["Retry-After"] = str(RETRY_AFTER_S)
    if preferred.applied:
        response["Preference-Applied"] = preferred.applied
    return response


async def _outcome(promise_id: str, wait_s: int) -> Any:
    if wait_s:
        # By its id alone a handle gives the value as the JSON that it is stored as.
        return await Handle[Any](promise_id).aresult(wait_s)
    promise = await in_thread(get)(promise_id)
    if not promise.is_settled:
        raise ResultTimeout
    return promise.outcome()
