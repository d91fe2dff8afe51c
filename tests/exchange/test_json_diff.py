"""Two JSON values, line by line."""

import json
from typing import Any

import pytest
from hypothesis import assume, given

from asgi_connector._exchange.json_diff import diff_lines
from asgi_connector._exchange.json_values import differences
from asgi_connector._exchange.redaction import is_secret
from tests.exchange.test_json_values import JSON


def diff(expected: Any, actual: Any, *, subset: bool = False) -> str:
    return "\n".join(diff_lines(expected, actual, subset=subset))


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(name for each in value.values() for name in names_in(each))}
    return {name for each in value for name in names_in(each)} if isinstance(value, list) else set()


@given(JSON, JSON)
def test_there_are_lines_exactly_if_the_values_differ(one: Any, other: Any) -> None:
    assume(not any(map(is_secret, names_in(one) | names_in(other))))
    for subset in (False, True):
        assert bool(diff_lines(one, other, subset=subset)) == bool(list(differences(one, other, subset=subset)))


def test_a_difference_is_shown_with_what_is_near() -> None:
    expected = {"id": 1, "name": "Ada", "tags": ["a", "b"]}
    assert diff(expected, {"name": "Bob", "more": None, "id": 1.0, "tags": ["a"]}) == (
        "  {\n"
        '    "id": 1,\n'
        '-   "name": "Ada",\n'
        '+   "name": "Bob",\n'
        '    "tags": [\n'
        '-     "a",\n'
        '-     "b"\n'
        "-   ]\n"
        '+     "a"\n'
        "+   ],\n"
        '+   "more": null\n'
        "  }"
    )


def test_members_that_are_not_asked_for_are_left_out_of_a_subset() -> None:
    expected = {"items": [{"id": 1}, {"id": 2}]}
    actual = {"items": [{"id": 1, "size": 5}, {"size": 6, "id": 3}], "more": {"a": 1}}
    assert diff(expected, actual, subset=True) == (
        "  {\n"
        '    "items": [\n'
        "      {\n"
        '        "id": 1\n'
        "      },\n"
        "      {\n"
        '-       "id": 2\n'
        '+       "id": 3\n'
        "      }\n"
        "    ]\n"
        "  }"
    )


def test_places_that_are_far_apart_are_separated() -> None:
    one = list(range(60))
    other = [*one[:5], -1, *one[6:-1], -1]
    assert (
        diff(one, other).replace("\n   ", "")
        == "  ... 2, 3, 4,\n-   5,\n+   -1, 6, 7, 8,\n  ... 56, 57, 58,\n-   59\n+   -1\n  ]"
    )
    assert diff(one[:20], [*one[:19], -1]).count("\n") == 22  # all of it


def test_secrets_are_not_shown() -> None:
    one = {"user": "Ada", "password": "s3cret", "tokens": ["s3cret"]}
    other = {"user": "Bob", "password": "an0ther", "pin": "an0ther", "tokens": []}
    text = diff(one, other)
    assert '+   "user": "Bob",' in text
    assert '+   "pin": "[redacted]"' in text
    assert "s3cret" not in text
    assert "an0ther" not in text
    assert diff({"password": "s3cret"}, {"password": "an0ther"}) == ""


def test_a_long_diff_and_a_long_line_are_cut() -> None:
    lines = diff_lines(list(range(100)), list(range(100, 200)), subset=False)
    assert len(lines) == 41
    assert lines[-1] == "... 162 more lines"
    (_, shown) = diff_lines("a", "b" * 1000, subset=False)
    assert shown == f'+ "{"b" * 157}…'


def test_a_line_is_one_line_and_cannot_change_a_terminal() -> None:
    assert diff("a", "\u2028\u202e\x85\x1b\ud800") == '- "a"\n+ "\\u2028\\u202e\\x85\\u001b\\ud800"'


@pytest.mark.parametrize("subset", [False, True])
def test_values_that_are_nested_deeply_are_not_compared_below_a_depth(subset: bool) -> None:
    one, other = (json.loads('{"a":' * 900 + last + "}" * 900) for last in "12")
    assert diff_lines(one, other, subset=subset) == []
    (line, *_) = diff_lines(one, 3, subset=subset)
    assert line == "- {"


def test_many_lines_take_little_time() -> None:
    """Only the first lines are compared, so the time has a limit; what differs later is not shown."""
    one, other = [n % 7 for n in range(100_000)], [n % 5 for n in range(100_000)]
    assert diff_lines(one, other, subset=False)[-1].endswith(" more lines")
    assert diff_lines([0] * 3000 + [1], [0] * 3000 + [2], subset=False) == []
