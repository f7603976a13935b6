"""The three routes. Each starts a durable flow under a fixed id, so that the same request again finds the same flow."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from flows import abegin_rpc
from flows.http.requests import check_body, preference, promise_id
from flows.http.views import answer


@csrf_exempt
@require_POST
async def await_chain(request: HttpRequest) -> JsonResponse:
    """Start foo, which awaits bar, which awaits baz; answer with the value."""
    check_body(request)
    preferred = preference(request)
    handle = await abegin_rpc(promise_id(request, "await-chain"), "foo", "foo", target="poll://any@service-a")
    return await answer(handle, preferred)


@csrf_exempt
@require_POST
async def detached_chain(request: HttpRequest) -> JsonResponse:
    """Start qux, which starts quz, which starts cog; nobody waits."""
    check_body(request)
    preference(request)
    await abegin_rpc(promise_id(request, "detached-chain"), "qux", 1, target="poll://any@service-d")
    return JsonResponse({"message": "detached-chain started"})


@csrf_exempt
@require_POST
async def fan_out_workflow(request: HttpRequest) -> JsonResponse:
    """Start zim, which awaits rax and dop; answer with the value."""
    check_body(request)
    preferred = preference(request)
    handle = await abegin_rpc(promise_id(request, "fan-out-workflow"), "zim", 1, target="poll://any@service-g")
    return await answer(handle, preferred)
