from django.apps import apps

from flows.checks import check_pages


def test_pages_need_htmx(monkeypatch):
    assert check_pages() == []
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "django_htmx")
    assert [message.id for message in check_pages()] == ["flows.W003"]
