import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain import values
from flows.domain.errors import NotJSONError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON)
def test_json_values_come_back_as_they_were(value):
    back = values.decode(values.encode(value, "value"))
    assert json.dumps(back) == json.dumps(value)


@given(st.dictionaries(TEXT, st.integers(), min_size=2))
def test_the_digest_does_not_depend_on_the_order_of_keys(value):
    assert values.digest([value]) == values.digest([dict(reversed(value.items()))])


def test_the_digest_tells_arguments_apart():
    assert len({values.digest(args) for args in ([], [1], [1.5], ["1"], [None], [[1]], [{"a": 1}])}) == 7


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object, "v"),
        ([1, {"a": {2, 3}}], "v[1].a"),
        ({"a": {1: 2}}, "v.a"),
        (float("inf"), "v"),
        ({"a\x00": 1}, "v"),
        (True + 0j, "v"),
    ],
    ids=repr,
)
def test_what_is_not_json_is_named_by_its_path(value, path):
    with pytest.raises(NotJSONError) as raised:
        values.encode(value, "v")
    assert raised.value.field == path


def test_subclasses_are_not_silently_flattened():
    class Money(int):
        pass

    with pytest.raises(NotJSONError, match="Money is not JSON"):
        values.encode(Money(1), "v")


def test_values_that_are_nested_too_deeply_are_refused():
    value: object = 1
    for _ in range(values.MAX_DEPTH + 2):
        value = [value]
    with pytest.raises(NotJSONError, match="nested deeper"):
        values.encode(value, "v")
