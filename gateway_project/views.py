"""The three routes. Each starts a durable flow under a fixed id, so that the same request again finds the same flow."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from flows import abegin_rpc
from flows.http.answers import answer
from flows.http.requests import read


@csrf_exempt
@require_POST
async def await_chain(request: HttpRequest) -> JsonResponse:
    """Start foo, which awaits bar, which awaits baz; answer with the value."""
    asked = read(request, "await-chain")
    handle = await abegin_rpc(asked.promise_id, "foo", "foo", target="poll://any@service-a")
    return await answer(handle, asked.preference)


@csrf_exempt
@require_POST
async def detached_chain(request: HttpRequest) -> JsonResponse:
    """Start qux, which starts quz, which starts cog; nobody waits."""
    asked = read(request, "detached-chain")
    await abegin_rpc(asked.promise_id, "qux", 1, target="poll://any@service-d")
    return JsonResponse({"message": "detached-chain started"})


@csrf_exempt
@require_POST
async def fan_out_workflow(request: HttpRequest) -> JsonResponse:
    """Start zim, which awaits rax and dop; answer with the value."""
    asked = read(request, "fan-out-workflow")
    handle = await abegin_rpc(asked.promise_id, "zim", 1, target="poll://any@service-g")
    return await answer(handle, asked.preference)
