"""The call tree of one promise as a page of its own, for whoever may view promises, staff or not."""

from django.contrib.auth.decorators import login_required, permission_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from flows import waterfall
from flows.domain.errors import PromiseNotFound
from flows.store.trees import read_tree


@require_safe
@never_cache
@login_required
@permission_required("flows.view_promise", raise_exception=True)
def tree_page(request: HttpRequest, promise_id: str) -> HttpResponse:
    """Show the promise and the calls below it; a live page asks for the drawing alone."""
    try:
        tree = read_tree(promise_id)
    except PromiseNotFound:
        raise Http404 from None
    drawing = waterfall.lay_out(
        tree,
        path=request.path,
        flipped=request.GET.getlist(waterfall.FLIP),
        href=lambda each: reverse("flows:tree", args=[each]),
    )
    context = {
        "waterfall": drawing,
        "promise": tree.promises[0],
        "state": drawing.rows[0].states[0],
        "standing": drawing.rows[0].standing,
    }
    is_asked_by_htmx = "HX-Request" in request.headers
    return render(request, waterfall.TEMPLATE if is_asked_by_htmx else "flows/tree.html", context)
