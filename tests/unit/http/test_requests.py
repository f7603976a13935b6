import time

import pytest
from django.test import RequestFactory

from flows.domain.errors import InvalidInputError
from flows.http.problem_types import BODY_TOO_LARGE, NOT_JSON
from flows.http.problems import HttpProblem
from flows.http.requests import check_body, preference, promise_id


def post(body=b"", content_type="application/json", **headers):
    return RequestFactory().post("/route", body, content_type=content_type, headers=headers)


def prefer(header):
    return preference(post(Prefer=header))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "route"),
        ("abc", "route:abc"),
        ('"abc"', "route:abc"),
        ("  a/b:c@1  ", "route:a/b:c@1"),
        ("v1.0-rc", "route:v1.0-rc"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "route:8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("x" * 249, "route:" + "x" * 249),
    ],
)
def test_the_key_becomes_part_of_the_promise_id(key, expected):
    assert promise_id(post(**({"Idempotency-Key": key} if key else {})), "route") == expected


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        *((key, "not empty") for key in ("", '""')),
        *((key, "must start with a letter or digit") for key in ("a b", '"a', 'a"', "ä", "a%2Fb", "-a", "a,b", "a;b")),
        *((key, "must start with a letter or digit") for key in ('"a\\"b"', '"a","b"', '"a";b=1')),
        *((key, "ends like the id of a call") for key in ("a.0", "a.0.12", "a.d0123456789abcdef")),
        ("x" * 250, "at most 249 characters long, not 250"),
    ],
)
def test_a_malformed_key_is_refused_with_the_rule(key, rule):
    with pytest.raises(InvalidInputError, match=rule) as raised:
        promise_id(post(**{"Idempotency-Key": key}), "route")
    assert raised.value.field == "Idempotency-Key"


@pytest.mark.parametrize(
    ("header", "wait_s", "applied"),
    [
        ("", 30, ""),
        ("wait=5", 5, "wait=5"),
        ("wait=600", 60, "wait=60"),
        ("wait=0", 0, "wait=0"),
        ("wait=" + "9" * 5000, 60, "wait=60"),
        ("wait=0000000005", 5, "wait=5"),
        ('wait="7"', 7, "wait=7"),
        ("respond-async", 0, "respond-async"),
        ("respond-async, wait=5", 5, "respond-async, wait=5"),
        ("Wait = 7 ; anything", 7, "wait=7"),
        ("wait=7, wait=9", 7, "wait=7"),
    ],
)
def test_the_client_says_how_long_it_will_wait(header, wait_s, applied):
    preferred = prefer(header)
    assert (preferred.wait_s, preferred.applied) == (wait_s, applied)


@pytest.mark.parametrize(
    "header",
    ["handling=lenient, return=minimal", ", ,", 'foo="a, wait=3"', 'foo; bar="x,y"; baz', 'foo="\\"", other=', "x;;"],
)
def test_unknown_preferences_are_ignored(header):
    assert (prefer(header).wait_s, prefer(header).applied) == (30, "")
    assert prefer(f"{header}, wait=5").wait_s == 5


@pytest.mark.parametrize("header", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", 'wait="1 2"'])
def test_a_malformed_wait_is_refused_with_the_rule(header):
    with pytest.raises(InvalidInputError, match="whole number of seconds"):
        prefer(header)


@pytest.mark.parametrize("header", ["=", "wait=²", "wait=5 6", 'foo="open', "a b", "{}"])
def test_a_malformed_header_is_refused_with_the_rule(header):
    with pytest.raises(InvalidInputError, match=r"malformed; send wait=10") as raised:
        prefer(header)
    assert raised.value.field == "Prefer"


@pytest.mark.parametrize("part", [" ;", "; ", "\t ", '"\\', "a=", ";a ", ", "])
def test_no_header_takes_long_to_refuse(part):
    began = time.perf_counter()
    with pytest.raises(InvalidInputError):
        prefer("a" + part * 10_000 + "(")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b" {} \n"])
def test_an_empty_body_is_fine(body):
    check_body(post(body))


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": 1}', b"null", b"\xff", b"[" * 1024])
def test_any_other_body_is_refused(body):
    with pytest.raises(InvalidInputError) as raised:
        check_body(post(body))
    assert raised.value.field == "body"


@pytest.mark.parametrize(
    ("body", "content_type", "type"),
    [(b"a=1", "text/plain", NOT_JSON), (b"{}", "", NOT_JSON), (b" " * 1025, "application/json", BODY_TOO_LARGE)],
)
def test_a_body_of_another_kind_or_size_is_refused(body, content_type, type):
    with pytest.raises(HttpProblem) as raised:
        check_body(post(body, content_type))
    assert raised.value.type is type
