"""Promises, problems, health and metrics."""

from django.urls import path

from flows.http import health, metrics, trees, views

app_name = "flows"
urlpatterns = [
    path("promises/<path:promise_id>", views.promise_detail, name="promise"),
    path("trees/<path:promise_id>", trees.tree_page, name="tree"),
    path("problems/<slug:slug>", views.problem_type, name="problem"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
]
