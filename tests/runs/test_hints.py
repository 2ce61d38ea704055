from __future__ import annotations

import re

import pytest

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.hints import check_rendered
from tests.cases import cases


class ArgNotSet:
    """What Airflow has for a missing Variable."""


@cases(
    ("given", "rendered", "where"),
    {
        "template to None": ("{{ x }}", None, ""),
        "template to text None": ("{{ x }}", "None", ""),
        "object to None": (object(), None, ""),
        "dict value": ({"a": "{{ x }}"}, {"a": "None"}, "['a']"),
        "missing Variable": ("{{ x }}", "NOTSET", ""),
        "missing Variable on Airflow 3.1": ("{{ x }}", "<airflow.sdk.types.ArgNotSet object at 0x7f8f>", ""),
        "missing Variable as an object": ("{{ x }}", ArgNotSet(), ""),
        "nested list item": ({"a": {"b": ["{{ x }}", 1]}}, {"a": {"b": [None, 1]}}, "['a']['b'][0]"),
    },
)
def test_value_rendered_to_nothing_is_refused_with_its_location(given, rendered, where):
    message = re.escape(f"profile_id{where} was given, but Airflow rendered it to N")
    with pytest.raises(InputError, match=f"^{message}"):
        check_rendered("profile_id", given, rendered)


@cases(
    ("given", "rendered"),
    {
        "None given": (None, None),
        "text None given": ("None", "None"),
        "object to text None": (object(), "None"),
        "text NOTSET given": ("NOTSET", "NOTSET"),
        "text with NOTSET": ("{{ x }} y", "NOTSET y"),
        "dict with None given": ({"a": None}, {"a": None}),
        "template to empty text": ("{{ x }}", ""),
        "template to dict with None": ("{{ x }}", {"a": None}),
        "template to list with None": (["{{ x }}"], ["a", None]),
    },
)
def test_explicit_none_and_other_rendered_values_are_accepted(given, rendered):
    check_rendered("profile_id", given, rendered)
