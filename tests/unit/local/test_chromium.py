import shutil

from local import chromium


def test_a_chromium_that_is_named_wins(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/opt/chromium")
    assert chromium.find() == "/opt/chromium"


def test_without_one_the_tests_are_told_to_be_skipped(monkeypatch, capsys):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert chromium.main() == 0
    assert "tests/browser are skipped" in capsys.readouterr().err
