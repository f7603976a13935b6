from dataclasses import replace
from datetime import UTC, datetime

import pytest

import flows
from flows.domain.errors import InvalidInputError, RegistrationError, UnknownFunctionError, UnknownVersionError
from flows.domain.retry import DEFAULT, Never
from flows.engine.registry import DurableFunction, Registry


def durable(function, name="f"):
    return DurableFunction(group="g", name=name, function=function, retry=DEFAULT, timeout=None)


async def async_generator(ctx):
    yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: None, "must take the context"),
        (lambda *, ctx: None, "must take the context"),
        (lambda ctx, *, needed: None, "keyword-only parameters without a default"),
        (async_generator, "is an async generator"),
    ],
)
def test_signatures_that_cannot_work_are_refused(function, reason):
    with pytest.raises(RegistrationError, match=reason):
        Registry().add(durable(function))


def test_a_name_is_registered_once_in_a_group():
    registry = Registry()
    registry.add(durable(lambda ctx: None))
    with pytest.raises(RegistrationError, match=r"g\.f is registered already, by tests"):
        registry.add(durable(lambda ctx: None))


def test_an_unknown_function_names_the_known_ones():
    registry = Registry()
    registry.add(durable(lambda ctx: None, "foo"))
    with pytest.raises(UnknownFunctionError, match="it has: foo"):
        registry.get("g", "bar")


def test_arguments_that_do_not_fit_are_refused_with_the_definition():
    with pytest.raises(InvalidInputError, match=r"missing a required argument: 'b'; g\.f is defined as f\(ctx, a, b\)"):
        durable(lambda ctx, a, b: None).check_args([1])


def test_a_durable_function_can_be_called_plainly():
    assert durable(lambda ctx, a: a + 1)(None, 1) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"retry": Never},
        {"retry": 5},
        {"version": 0},
        {"version": "2"},
        {"timeout": 0},
        {"timeout": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        flows.durable(group="g", name="f", **options)(lambda ctx: None)


def test_versions_stand_side_by_side():
    registry = Registry()
    for version in (2, 1):
        registry.add(replace(durable(lambda ctx: None), version=version))
    assert [each.version for each in registry] == [2]
    assert registry.get("g", "f", 1).version == 1
    with pytest.raises(UnknownVersionError, match="no version 3 here; it has: 1, 2"):
        registry.get("g", "f", 3)
