import pytest

from flows.domain import ids
from flows.domain.errors import InvalidInputError


@pytest.mark.parametrize("good", ["a", "0", "order/15:x@y_z-1.2a", "x" * 255])
def test_good_ids(good):
    assert ids.check_id(good) == good


CHILDREN = ["a.0", "a.d0123456789abcdef"]


@pytest.mark.parametrize("bad", ["", "-a", ".a", "a b", "a%", "ä", "a\n", "x" * 256, None, 7, *CHILDREN])
def test_bad_ids_name_field_and_rule(bad):
    with pytest.raises(InvalidInputError, match="^id: must|^id: .* must start|^id: .* ends like"):
        ids.check_id(bad)


@pytest.mark.parametrize("target", ["service-a", "poll://any@service-a"])
def test_targets_name_a_group(target):
    assert ids.parse_target(target) == "service-a"


@pytest.mark.parametrize("target", ["", "poll://any@", "poll://uni@service-a/1", "http://x", "a b", None])
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
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        ids.child_id("x" * 999, 0)
