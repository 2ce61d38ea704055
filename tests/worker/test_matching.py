"""Which listed task is the run of a start: how its inputs are compared."""

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.worker.matching import same_texts, same_values
from tests.helpers.cases import cases, examples

AB = {"a": "1", "b": "two words"}
LONG, CUT = "x" * 100, "x" * 64
BX = {"a": "1; b=x", "b": "2"}
NULL = {"a": 1, "b": None}


@cases(
    ("other separators", "a=1;b=two words;", AB, True),
    ("other whitespace", "a = 1; b=  two\nwords ", AB, True),
    ("no inputs", "", {}, True),
    ("JSON pairs", '[{"name": "a", "value": "1"}]', AB, None),
    ("masked value", "a=***; b=two words", AB, None),
    ("value cut short", "a=1; b=tw...", AB, None),
    ("truncated", f"a={CUT}", {"a": LONG}, None),
    ("truncated, another value", f"a={CUT}", {"a": "y" * 99}, False),
    ("truncated, another input", f"a={CUT}; b=2", {"a": LONG, "b": "2"}, None),
    ("truncated, listed twice", f"a={CUT}; b=2; a=z", {"a": LONG, "b": "2"}, None),
    ("truncated, with separators", f"a={'x;' * 40}x", {"a": "x;" * 60}, None),
    ("separators in values", "a=1; b=x=y; c=; d=2", {"a": "1; b=x=y", "c": "; d=2"}, True),
    ("value like an input", "a=1; b=x; b=2", BX, None),
    ("value like no known input", "a=1; b=x; c=2", {"a": "1; b=x", "c": "2"}, True),
    ("names that differ only in spaces", "a b=1", {"a b": "1", "ab": "2"}, None),
    ("separator at the end of the value", "a=1;", {"a": "1;"}, True),
    ("listed twice, with another value", "a=1; a=2", {"a": "1"}, None),
)
def test_listed_inputs_match_differ_or_remain_undecided(text, inputs, match):
    assert same_texts(text, inputs) is match


WORDS = st.text(alphabet="ab=; ", max_size=4)


@given(
    sent=st.dictionaries(WORDS.filter(str.strip), WORDS, max_size=4),
    more=st.dictionaries(WORDS.filter(str.strip), WORDS, max_size=3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=examples(500), deadline=None)
def test_run_with_the_sent_inputs_and_more_never_counts_as_another_one(sent, more, order):
    parts = [f"{name}={value}" for name, value in (more | sent).items()]
    order.shuffle(parts)
    assert same_texts("; ".join(parts), sent) is not False


PLAIN = st.text(alphabet="abc", min_size=1, max_size=3)


@given(sent=st.dictionaries(PLAIN, PLAIN, max_size=4), listed=st.dictionaries(PLAIN, PLAIN, max_size=4))
@settings(max_examples=examples(500), deadline=None)
def test_certain_match_has_every_sent_input_with_its_value(sent, listed):
    found = same_texts("; ".join(f"{name}={value}" for name, value in listed.items()), sent)
    differs = any(name in listed and listed[name] != value for name, value in sent.items())
    possible = None if listed and not sent else True
    assert found is (possible if sent.items() <= listed.items() else False if differs else None)


SENT: dict[str, Any] = {
    "company": "Example Corp",
    "pages": 2,
    "deep": {"since": "2026-01-01", "tags": ["a", "b"], "exact": True},
}


def changed(**members: Any) -> dict[str, Any]:
    return {**SENT, **members}


def deep(**members: Any) -> dict[str, Any]:
    return changed(deep={**SENT["deep"], **members})


@cases(
    ("number as float", changed(pages=2.0), True),
    ("JSON text with another format", changed(deep=json.dumps(SENT["deep"], indent=2, sort_keys=True)), True),
    ("boolean as text of Python", deep(exact="True"), True),
    ("text that begins like the sent one", changed(company="Example Corporation"), False),
    ("other number", changed(pages=20), False),
    ("boolean for a number", changed(pages=True), False),
    ("null for a value", changed(company=None), False),
    ("list for a text", changed(company=["Example Corp"]), False),
    ("other value within", deep(since="2026-01-02"), False),
    ("other order of a list", deep(tags=["b", "a"]), False),
    ("longer list", deep(tags=["a", "b", "c"]), False),
    ("missing", {name: SENT[name] for name in ("company", "pages")}, False),
    # It may have a default.
    ("one more", changed(region="DE"), True),
    ("one more within", deep(region="DE"), None),
    ("only whitespace differs", changed(company=" Example  Corp "), None),
    ("masked", changed(company="******"), None),
    ("masked object", changed(deep="***"), None),
    ("masked with bullets", changed(company="\u2022\u2022\u2022\u2022"), None),
    ("replaced by a word", changed(company="[REDACTED]"), None),
    ("masked, and another value", changed(company="***", pages=3), False),
    ("truncated", changed(company="Exam..."), None),
    ("truncated, one sign", changed(company="Exam\u2026"), None),
    ("truncated object", changed(deep='{"since": "2026-01'), None),
    ("truncated list", deep(tags='["a", "'), None),
    ("not shown", None, None),
    ("nothing shown", {}, None),
)
def test_listed_input_matches_differs_or_remains_undecided(listed, match):
    assert same_values(listed, SENT) is match


@cases(
    ("number with a fraction, converted by us", 1.5, "1.50", True),
    ("boolean, converted by us", True, "True", True),
    ("another version", "1.1", "1.10", None),
    ("text that is no JSON number", 7, "007", False),
    ("long number", "12345678901234567890", 12345678901234567890, True),
    ("long number, rounded", 12345678901234567000, "12345678901234567890", None),
    ("long number, another one", 12345678901234500000, "12345678901234567890", False),
    ("number that a float cannot have", "1e400", "1e500", None),
    ("number beyond all floats", 10**400, 10**401, False),
    ("no number", "NaN", "NaN", True),
    ("no number in a list", "[NaN]", "[ NaN ]", None),
    ("text of 64 characters that may be truncated", LONG[:64], LONG, None),
    ("text of 63 characters", LONG[:63], LONG, False),
    ("asterisks that were sent", "a*b", "a*b", True),
    ("asterisks that were sent, another text", "a*c", "a*b", False),
    ("masked, with an asterisk that was sent", "a*b****", "a*b-secret", None),
    ("null within, left out", {"y": 1}, {"x": None, "y": 1}, None),
    ("empty text", "", "", True),
    ("empty text for null", "", None, False),
    ("0 for false", 0, False, False),
    ("text that becomes a number within JSON text", '{"a": "1"}', {"a": 1}, True),
)
def test_value_and_its_json_text_are_the_same_if_nothing_is_lost(listed, sent, match):
    assert same_values({"a": listed, "b": 1}, {"a": sent, "b": 1}) is match


# Null may be left out.
@pytest.mark.parametrize(
    ("listed", "sent", "match"),
    [({"a": 1}, NULL, None), (NULL, NULL, True), ({}, {}, True), ({"a": 1}, {}, None), (None, {}, None)],
)
def test_null_and_no_input_match_only_if_they_are_listed(listed, sent, match):
    assert same_values(listed, sent) is match


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def same_value(listed: Any, sent: Any) -> bool | None:
    return same_values({"a": listed}, {"a": sent})


INPUTS_1000 = {f"n{number}": str(number) for number in range(1000)}
LISTED_1000 = "; ".join(f"{name}={value}" for name, value in INPUTS_1000.items())
MANY = list(range(90_000))


@cases(
    ("1,000 inputs", same_texts, True, LISTED_1000, INPUTS_1000),
    ("a text of separators", same_texts, None, ";=" * 500_000, {"a": "1"}),
    ("a text of names", same_texts, None, "n1=;" * 250_000, {"a": "1"}),
    ("a long input", same_texts, False, "a=" + "1" * 5_000_000, {"a": "1"}),
    ("100 levels", same_value, True, nested(100), nested(100)),
    ("1,000 levels", same_value, None, nested(1000), nested(1000)),
    ("many levels as text, on both sides", same_value, None, "[" * 1_000_000, "[" * 999_999),
    ("90,000 numbers as text", same_value, True, json.dumps(MANY), MANY),
    ("270,000 numbers", same_value, True, MANY * 3, MANY * 3),
    ("masks and texts", same_value, None, "a*" * 2_500_000, "x"),
    ("a long text", same_value, False, "x" * 5_000_000, "y" * 5_000_000),
    ("many digits", same_value, False, "1" * 100_000, 1),
)
def test_inputs_are_compared_in_bounded_time(compare, match, listed, sent):
    began = time.thread_time()
    assert compare(listed, sent) is match
    # 100 ms at most; the rest is for a busy machine, and for the garbage of all tests before.
    assert time.thread_time() - began < 5.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=3)


def converted(value: Any, chance: Any) -> Any:
    """Write some of the values in a value, but no texts, as JSON text."""
    if isinstance(value, dict):
        value = {name: converted(member, chance) for name, member in value.items()}
    elif isinstance(value, list):
        value = [converted(item, chance) for item in value]
    return json.dumps(value) if not isinstance(value, str) and chance.random() < 0.3 else value


@given(sent=OBJECT, chance=st.randoms(use_true_random=False), ours=st.booleans())
@settings(deadline=None)
def test_conversions_do_not_prevent_the_match_of_any_input(sent, chance, ours):
    other = {name: converted(value, chance) for name, value in sent.items()}
    listed, sent = (sent, other) if ours else (other, sent)
    assert same_values(listed, sent) is True


@given(sent=OBJECT, listed=OBJECT)
@settings(deadline=None, max_examples=examples(500))
def test_certain_match_of_any_two_inputs_has_the_same_json_values_for_all_that_was_sent(sent, listed):
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(member) for name, member in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        # A boolean is not a number.
        with suppress(ValueError):
            return plain(json.loads(value)) if isinstance(value, str) else (type(value) is bool, value)
        return value

    if same_values(listed, sent):
        assert {name: plain(listed[name]) for name in sent} == plain(sent)
