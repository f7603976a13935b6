"""The documents name what there is: no public name is missing from them, and none is made up."""

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

import flows
from flows.conf import Settings
from flows.domain.retry import Constant, Exponential

ROOT = Path(__file__).parent.parent.parent
API = (ROOT / "docs" / "api.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def section(title: str) -> str:
    return API.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_tables_list_the_public_names():
    names = ROW.findall(API.split("\n## The context\n")[0])
    assert sorted(names) == sorted(flows.__all__)


def test_every_public_name_exists():
    assert [name for name in flows.__all__ if not hasattr(flows, name)] == []


def test_the_tables_list_the_operations_of_the_context():
    rows = ROW.findall(section("The context"))
    listed = [re.sub(r"^ctx\.(\w+).*", r"\1", row) for row in rows]
    assert sorted(listed) == sorted(name for name in vars(flows.Context) if not name.startswith("_"))


def defaults(of: str) -> dict[str, str]:
    """Return the rows of one part of the table of defaults, by name."""
    found: dict[str, str] = {}
    part = ""
    for line in section("Defaults").splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            part = cells[0] or part
            if part == of:
                found[cells[1]] = cells[2]
    return found


def shown(value: object) -> str:
    """Return a value as the table shows it, without its unit's zeros: 24 h, 5 ms."""
    if not isinstance(value, timedelta) or not value:
        return "0" if value == timedelta(0) else f'"{value}"' if isinstance(value, str) else str(value)
    for unit, name in ((timedelta(hours=1), "h"), (timedelta(seconds=1), "s"), (timedelta(milliseconds=1), "ms")):
        if value >= unit:
            return f"{value // unit} {name}"
    raise AssertionError(value)


def test_the_table_of_defaults_is_that_of_the_settings():
    listed = defaults("FLOWS")
    assert {name: text.split("`")[0].split(":")[0] for name, text in listed.items()} == {
        field.name: shown(field.default) for field in fields(Settings)
    }


@pytest.mark.parametrize("policy", [Exponential, Constant])
def test_the_table_of_defaults_is_that_of_the_policies(policy):
    listed = defaults(policy.__name__)
    assert list(listed) == [field.name for field in fields(policy)]
    assert int(listed["max_attempts"]) == policy(**({"wait": 1} if policy is Constant else {})).max_attempts


def test_the_default_waits_are_those_of_the_table():
    listed, policy = defaults("Exponential"), Exponential()
    assert [listed["initial"], listed["factor"]] == [shown(policy.initial), str(policy.factor)]
    assert listed["maximum"].startswith("60 s,")
    assert policy.maximum == timedelta(seconds=60)


def test_the_first_flow_is_quoted_as_it_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "first-flow.md").read_text(), re.DOTALL)
    assert blocks[0] == (ROOT / "tests" / "orders" / "flows.py").read_text()
    assert (ROOT / "tests" / "orders" / "models.py").read_text().endswith(blocks[1])


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("*.md")], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
