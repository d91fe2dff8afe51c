"""Where two JSON values differ."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_connector._exchange.json_values import differences, shown_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def canonical(value: Any) -> Any:
    """A value that is equal to another one's exactly if both are the same JSON value: `True` is not 1."""
    if isinstance(value, dict):
        return {name: canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return type(value).__name__ if isinstance(value, bool) or value is None else ("value", value), str(value is True)


@given(JSON, JSON)
def test_values_without_a_difference_are_the_same(one: Any, other: Any) -> None:
    assert (list(differences(one, other)) == []) == (canonical(one) == canonical(other))
    assert bool(list(differences(one, other))) == bool(list(differences(other, one)))


def contains(actual: Any, expected: Any) -> bool:
    """A simple model of what ``subset`` means."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return all(name in actual and contains(actual[name], expected[name]) for name in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(contains, actual, expected))
    return bool(canonical(expected) == canonical(actual))


def with_more(value: Any, more: Any) -> Any:
    """*value* with a further member in each of its objects."""
    if isinstance(value, dict):
        return {"more": more} | {name: with_more(each, more) for name, each in value.items()}
    return [with_more(each, more) for each in value] if isinstance(value, list) else value


@given(JSON, JSON)
def test_a_value_without_a_difference_contains_the_other_one(one: Any, other: Any) -> None:
    assert (list(differences(one, other, subset=True)) == []) == contains(other, one)


@given(JSON, JSON)
def test_a_value_with_more_members_contains_the_same_without(value: Any, more: Any) -> None:
    larger = with_more(value, more)
    assert list(differences(value, larger, subset=True)) == []
    assert list(differences(value, larger)) or canonical(value) == canonical(larger)


@given(JSON)
def test_a_value_does_not_differ_from_itself_as_it_is_sent(value: Any) -> None:
    assert list(differences(value, json.loads(json.dumps(value)))) == []


@given(st.lists(st.integers() | st.text(), min_size=1), st.data())
def test_one_change_is_one_difference_at_its_place(value: list[Any], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(value) - 1))
    changed = [*value[:at], None, *value[at + 1 :]]
    (found,) = differences({"items": value}, {"items": changed})
    assert found.startswith(f"$.items[{at}] is null, not ")


@pytest.mark.parametrize(
    ("expected", "actual", "found"),
    [
        (1, 1.0, []),
        (True, 1, ["$ is 1, not true"]),
        (0, False, ["$ is false, not 0"]),
        (None, {}, ["$ is {}, not null"]),
        ([], {}, ["$ is {}, not []"]),
        ([1, 2], [1], ["$ has 1 item, not 2"]),
        ([1], [2, 3], ["$ has 2 items, not 1", "$[0] is 2, not 1"]),
        ({"a": {"b": [{"c": "é"}]}}, {"a": {"b": [{"c": "e"}]}}, ['$.a.b[0].c is "e", not "é"']),
        ({"a": 1, "b": 2}, {"c": 3}, ["$.a is missing", "$.b is missing", "$.c is not expected"]),
        ({"": 1, "a b": 2}, {"": 0, "a b": 0}, ['$[""] is 0, not 1', '$["a b"] is 0, not 2']),
        ({"pin": {"n": [1, 2]}}, {"pin": {"n": [3]}}, ["$.pin.n has 1 item, not 2", "$.pin.n[0] differs: [redacted]"]),
        ({"a": {"token": 1}}, {"a": [{"token": 2}]}, ['$.a is [{"token": "[redacted]"}], not {"token": "[redacted]"}']),
    ],
)
def test_differences_are_named_by_their_place(expected: Any, actual: Any, found: list[str]) -> None:
    assert list(differences(expected, actual)) == found


def test_a_long_value_is_cut() -> None:
    assert shown_json("a" * 100) == '"' + "a" * 79 + "…"


def test_a_value_that_is_nested_deeply_is_cut_too() -> None:
    assert shown_json(json.loads("[" * 900 + "]" * 900)) == "[" * 20 + '"…"' + "]" * 20
    (found,) = differences(1, json.loads('{"a":' * 900 + "1" + "}" * 900))
    assert found.startswith('$ is {"a": {"a": ')
