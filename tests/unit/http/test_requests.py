import pytest
from django.test import RequestFactory

from flows.domain.errors import InvalidInputError
from flows.http.problems import HttpProblem
from flows.http.requests import check_body, preference, promise_id


def post(body=b"", content_type="application/json", **headers):
    return RequestFactory().post("/route", body, content_type=content_type, headers=headers)


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, "route"), ("abc", "route:abc"), ('"abc"', "route:abc"), ("  a/b:c@1  ", "route:a/b:c@1")],
)
def test_the_key_becomes_part_of_the_promise_id(key, expected):
    assert promise_id(post(**({"Idempotency-Key": key} if key else {})), "route") == expected


@pytest.mark.parametrize("key", ["", '""', "a b", '"a', "ä", "x" * 250, "a%2Fb", '"a\\"b"'])
def test_a_malformed_key_is_refused_with_the_rule(key):
    with pytest.raises(InvalidInputError) as raised:
        promise_id(post(**{"Idempotency-Key": key}), "route")
    assert raised.value.field == "Idempotency-Key"


@pytest.mark.parametrize(
    ("header", "wait_s", "is_given"),
    [
        ("", 30, False),
        ("wait=5", 5, True),
        ("wait=600", 60, True),
        ("respond-async", 0, True),
        ("respond-async, wait=5", 5, True),
        ("Wait = 7 ; anything", 7, True),
        ("handling=lenient, return=minimal", 30, False),
        (",;=", 30, False),
    ],
)
def test_preferences_are_read_and_unknown_ones_ignored(header, wait_s, is_given):
    preferred = preference(post(Prefer=header))
    assert (preferred.wait_s, preferred.is_given) == (wait_s, is_given)


@pytest.mark.parametrize("header", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=²"])
def test_a_malformed_wait_is_refused_with_the_rule(header):
    with pytest.raises(InvalidInputError, match="whole number of seconds"):
        preference(post(Prefer=header))


@pytest.mark.parametrize("body", [b"", b"{}", b" {} \n"])
def test_an_empty_body_is_fine(body):
    check_body(post(body))


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": 1}', b"null", b"\xff"])
def test_any_other_body_is_refused(body):
    with pytest.raises(InvalidInputError) as raised:
        check_body(post(body))
    assert raised.value.field == "body"


@pytest.mark.parametrize(
    ("body", "content_type", "status"), [(b"a=1", "text/plain", 415), (b" " * 1025, "text/plain", 413)]
)
def test_a_body_of_another_kind_or_size_is_refused(body, content_type, status):
    with pytest.raises(HttpProblem) as raised:
        check_body(post(body, content_type))
    assert raised.value.status == status
