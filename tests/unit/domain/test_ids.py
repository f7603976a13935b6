import pytest

from flows.domain import ids
from flows.domain.errors import InvalidInputError, LimitError


@pytest.mark.parametrize("good", ["a", "0", "order/15:x@y_z-1.2", "x" * 255])
def test_good_ids(good):
    assert ids.check_id(good) == good


@pytest.mark.parametrize("bad", ["", "-a", ".a", "a b", "a%", "ä", "a\n", "x" * 256, None, 7])
def test_bad_ids_name_field_and_rule(bad):
    with pytest.raises(InvalidInputError, match="^id: must|^id: .* must start"):
        ids.check_id(bad)


@pytest.mark.parametrize("target", ["service-a", "poll://any@service-a"])
def test_targets_name_a_group(target):
    assert ids.parse_target(target) == ids.Target(group="service-a")


@pytest.mark.parametrize("node", ["4711", "service-a@host.example"])
def test_targets_name_one_node_of_a_group(node):
    target = ids.parse_target(f"poll://uni@service-a/{node}")
    assert target == ids.Target(group="service-a", addressee=node)


@pytest.mark.parametrize(
    "target", ["", "poll://any@", "poll://uni@service-a", "poll://uni@service-a/", "http://x", "a b", None]
)
def test_bad_targets_say_what_is_right(target):
    with pytest.raises(InvalidInputError, match="poll://any@<group>|'service-a'"):
        ids.parse_target(target)


def test_detached_ids_are_deterministic_and_do_not_grow():
    first = ids.detached_id("root", "root", 0)
    second = ids.detached_id(first, first, 0)
    assert first == ids.detached_id("root", "root", 0)
    assert first != second
    assert len(first) == len(second) == len("root.d") + 16


def test_ids_that_grow_without_bound_are_refused():
    with pytest.raises(LimitError, match="nested too deeply"):
        ids.child_id("x" * 999, 0)


@pytest.mark.parametrize(("promise_id", "is_like"), [("a.0", True), ("a.b", False), ("a.0x", False), ("a0", False)])
def test_ids_that_calls_might_have_are_known(promise_id, is_like):
    assert ids.is_like_a_call(promise_id) is is_like
    assert ids.is_like_a_call(ids.detached_id("root", "root", 0))
