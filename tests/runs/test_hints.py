import re

import pytest

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.hints import check_rendered
from tests.helpers.cases import cases


class ArgNotSet:
    """What Airflow has for a missing Variable."""


MISSING = "NOTSET, as it does for a missing Variable."
NOT_SET = ("NOTSET", "<airflow.sdk.types.ArgNotSet object at 0x7f8f>", ArgNotSet())


@cases(
    ("template to None", "{{ x }}", None, "", "None."),
    ("template to text None", "{{ x }}", "None", "", "None."),
    ("object to None", object(), None, "", "None."),
    ("dict value", {"a": "{{ x }}"}, {"a": "None"}, "['a']", "None."),
    ("nested list item", {"a": {"b": ["{{ x }}", 1]}}, {"a": {"b": [None, 1]}}, "['a']['b'][0]", "None."),
    *((f"missing {each!s:.9}", {"a": "{{ x }}"}, {"a": each}, "['a']", MISSING) for each in NOT_SET),
)
def test_value_rendered_to_nothing_is_refused_with_its_location(given, rendered, where, to):
    message = re.escape(f"profile_id{where} was given, but Airflow rendered it to {to}")
    with pytest.raises(InputError, match=f"^{message}"):
        check_rendered("profile_id", given, rendered)


@cases(
    ("None given", None, None),
    ("text None given", "None", "None"),
    ("object to text None", object(), "None"),
    ("text NOTSET given", "NOTSET", "NOTSET"),
    ("text with NOTSET", "{{ x }} y", "NOTSET y"),
    ("dict with None given", {"a": None}, {"a": None}),
    ("template to empty text", "{{ x }}", ""),
    ("template to list with None", ["{{ x }}"], ["a", None]),
)
def test_explicit_none_and_other_rendered_values_are_accepted(given, rendered):
    check_rendered("profile_id", given, rendered)
