"""Promises and health."""

from django.urls import path

from flows.http import views

urlpatterns = [
    path("promises/<path:promise_id>", views.promise_detail, name="promise"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
