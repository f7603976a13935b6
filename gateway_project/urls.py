"""The gateway's addresses."""

from django.contrib import admin
from django.urls import include, path

from gateway_project import views

urlpatterns = [
    path("await-chain", views.await_chain),
    path("detached-chain", views.detached_chain),
    path("fan-out-workflow", views.fan_out_workflow),
    path("", include("flows.http.urls")),
    path("admin/", admin.site.urls),
]
