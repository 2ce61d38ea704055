"""Which listed task is the run of a start: how its inputs are compared."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import InputParameter
from airflow_provider_browseract.runs.matching import inputs_match


class TestInputsListedByTheApi:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("a=1; b=two words", True),
            ("b=two words; a=1", True),
            ("a=1;b=two words;", True),
            ("a = 1; b=  two\nwords ", True),
            ("a=2; b=two words", False),
            ("a=11; b=two words", False),
            ("b=other", False),
            ("a=1", None),
            ("a=1; b=two words; c=3", None),
            ("", None),
            ('[{"name": "a", "value": "1"}]', None),
            ("data=5", None),
            ("a=***; b=two words", None),
            ("a=1; b=tw...", None),
        ],
        ids=[
            "same order",
            "other order",
            "other separators",
            "other whitespace",
            "other value",
            "longer value",
            "other value with one missing",
            "one missing",
            "one more",
            "empty",
            "JSON pairs",
            "unknown name only",
            "masked value",
            "value cut short",
        ],
    )
    def test_inputs_listed_by_the_api_match_differ_or_remain_undecided(self, text, match):
        assert inputs_match(text, {"a": "1", "b": "two words"}) is match

    def test_truncated_input_is_undecided_or_differs_by_its_prefix(self):
        assert inputs_match(f"a={'x' * 64}; b=2", {"a": "x" * 99, "b": "2"}) is None
        assert inputs_match(f"a={'x' * 64}; b=2; a=z", {"a": "x" * 99, "b": "2"}) is None
        assert inputs_match("a=1; b=tw\u2026", {"a": "1", "b": "two words"}) is None
        assert inputs_match(f"a={'x' * 64}", {"a": "x" * 99}) is None
        assert inputs_match(f"a={'x' * 64}", {"a": "y" * 99}) is False
        assert inputs_match(f"a={'x' * 64}; u=1", {"a": "x" * 99}) is None
        assert inputs_match(f"a={'x;' * 40}x", {"a": "x;" * 60}) is None

    def test_inputs_with_separators_in_their_values_still_match(self):
        assert inputs_match("a=1; b=x=y; c=; d=2", {"a": "1; b=x=y", "c": "; d=2"}) is True

    @pytest.mark.parametrize(
        ("text", "inputs", "match"),
        [
            ("a=1; b=x; b=2", {"a": "1; b=x", "b": "2"}, None),
            ("a=1; b=3", {"a": "1; b=x", "b": "2"}, None),
            ("a=1; b=x; c=2", {"a": "1; b=x", "c": "2"}, True),
            ("x=y=1", {"x=y": "1"}, None),
            ("x;y=1", {"x;y": "1"}, None),
            ("a b=1", {"a b": "1", "ab": "2"}, None),
            ("a=1;", {"a": "1;"}, True),
            ("a=1;;", {"a": "1;"}, True),
            ("a=1;;", {"a": "1"}, None),
        ],
        ids=[
            "value like an input",
            "value like an input, other inputs",
            "value like no known input",
            "= in a name",
            "; in a name",
            "names that differ only in spaces",
            "separator at the end of the value",
            "separator after that",
            "two separators at the end",
        ],
    )
    def test_inputs_match_only_if_their_text_is_unambiguous(self, text, inputs, match):
        assert inputs_match(text, inputs) is match

    def test_declared_name_with_a_separator_makes_the_text_ambiguous(self):
        assert inputs_match("a=1", {"a": "1"}, [InputParameter("x;y")]) is None

    def test_run_without_inputs_matches_only_an_empty_listing(self):
        assert inputs_match("", {}) is True
        assert inputs_match("a=1", {}) is None

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("a=1; b=2; c=3", True),
            ("c=3; a=1; d=; b=2", True),
            ("c=x; y; d=4; a=1; b=2;", True),
            ("a=1; c=3", None),
            ("a=1; b=2; e=5", None),
            ("c=5+a=1; b=2", None),
            ("a=1; b=2; c=3; c=4", None),
            ("a=1; c=3; r=4; b=2", None),
            ("a=1; c=3; u=4; b=2", True),
            ("a=1; b=2; c=3; u=4", True),
            ("a=2; b=2; c=3", False),
        ],
        ids=[
            "one",
            "both, between",
            "with a separator",
            "one missing",
            "unknown",
            "in a value",
            "twice",
            "without a default",
            "not declared, before one that was sent",
            "not declared, at the end",
            "other value",
        ],
    )
    def test_listing_may_have_inputs_with_defaults_besides_those_that_were_sent(self, text, match):
        declared = [InputParameter(name, name != "r") for name in ("a", "c", "d", "r")]
        assert inputs_match(text, {"a": "1", "b": "2"}, declared) is match


NAMES_OF_SIGNS = ["=".join("x" * (number + 1)) for number in range(40)]
DECLARED_40 = [InputParameter(f"n{number}", True) for number in range(40)]
LISTED_40 = "; ".join(f"{one.name}=1" for one in DECLARED_40)
INPUTS_1000 = {f"n{number}": str(number) for number in range(1000)}
LISTED_1000 = "; ".join(f"{name}={value}" for name, value in INPUTS_1000.items())

COSTLY: dict[str, tuple[bool | None, str, dict[str, str], list[InputParameter]]] = {
    "40 inputs that are declared twice": (True, f"a=1; {LISTED_40}", {"a": "1"}, DECLARED_40 * 2),
    "40 inputs that are declared twice, not the run": (None, f"{LISTED_40}; a=2", {"b": "1"}, DECLARED_40 * 2),
    "40 inputs that are listed twice": (None, f"{LISTED_40}; {LISTED_40}; a=1", {"a": "1"}, DECLARED_40),
    "1,000 inputs": (True, LISTED_1000, INPUTS_1000, []),
    "1,000 inputs, another order": (True, "; ".join(reversed(LISTED_1000.split("; "))), INPUTS_1000, []),
    "1,000 inputs, one missing": (None, LISTED_1000.partition("; ")[2], INPUTS_1000, []),
    "1,000 inputs, one another": (False, LISTED_1000 + "0", INPUTS_1000, []),
    "1,000 declared": (True, f"a=1; {LISTED_1000}", {"a": "1"}, [InputParameter(name, True) for name in INPUTS_1000]),
    "names that contain =": (
        None,
        "; ".join([f"{NAMES_OF_SIGNS[-1]}=1"] * 40),
        {"a": "1"},
        [InputParameter(name, True) for name in NAMES_OF_SIGNS],
    ),
    "a text of separators": (None, ";=" * 500_000, {"a": "1"}, DECLARED_40),
    "20,000 names": (None, "n1=;" * 20_000, {"a": "1"}, DECLARED_40),
    "a text of names": (None, "n1=;" * 250_000, {"a": "1"}, DECLARED_40),
    "a long text": (None, "a=" + "1" * 5_000_000, {"a": "1"}, []),
    "a long name": (None, ";" * 10_000 + "b" * 900_000, {"a": "1"}, [InputParameter("b" * 300_000, True)]),
}


@pytest.mark.parametrize(("match", "text", "inputs", "declared"), COSTLY.values(), ids=COSTLY)
def test_inputs_are_compared_in_bounded_time(match, text, inputs, declared):
    began = time.thread_time()
    assert inputs_match(text, inputs, declared) is match
    # 50 ms at most; the rest is for a busy machine, and for the garbage of all tests before.
    assert time.thread_time() - began < 5.0


def split(text: str, pieces: list[str], added: list[str], names: list[str]) -> bool:
    """Return whether a text consists of all the pieces, by trying everything."""
    if not pieces and not text:
        return True
    for index, piece in enumerate(pieces):
        rest = text[len(piece) :]
        others = pieces[:index] + pieces[index + 1 :]
        if text.startswith(piece) and rest[:1] in ("", ";") and split(rest[1:], others, added, names):
            return True
    for name in added:
        if text.startswith(name):
            ends = [at for other in names if (at := text.find(f";{other}")) >= 0]
            end = min(ends, default=len(text))
            if split(text[end + 1 :], pieces, [other for other in added if other != name], names):
                return True
    return False


WORDS = st.text(alphabet="ab=; ", max_size=4)


@given(
    inputs=st.dictionaries(WORDS.filter(str.strip), WORDS, max_size=4),
    declared=st.lists(st.tuples(WORDS.filter(str.strip), st.booleans()), max_size=3),
    rest=st.lists(WORDS, max_size=3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=500, deadline=None)
def test_inputs_match_only_if_some_split_of_the_listed_text_consists_of_them(inputs, declared, rest, order):
    parts = [f"{name}={value}" for name, value in inputs.items()] + [f"{name}=b" for name, _ in declared] + rest
    order.shuffle(parts)
    text = "; ".join(parts[: len(inputs) + len(declared)])
    without = ["".join(f"{name}={value}".split()) for name, value in inputs.items()]
    known = ["".join(name.split()) + "=" for name in (*inputs, *(name for name, _ in declared))]
    sent, listed = known[: len(inputs)], "".join(text.split())
    defaults = dict.fromkeys("".join(name.split()) + "=" for name, enabled in declared if enabled)
    added = [name for name in defaults if name not in sent]
    found = inputs_match(text, inputs, [InputParameter(*one) for one in declared])
    possible = any(split(each, without, added, known) for each in (listed, listed.removesuffix(";")))
    # Other inputs can have the same text only if a value looks like an input, or two names are the same without spaces.
    words = (*inputs, *inputs.values(), *(name for name, _ in declared))
    plain = len(set(sent)) == len(sent) and not any(sign in word for word in words for sign in "=;")
    assert possible if found else not (possible and (plain or found is False))
