from __future__ import annotations

import re

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.runs.hints import check_rendered


class TestValueRenderedToNone:
    @pytest.mark.parametrize(
        ("given", "rendered", "where"),
        [
            ("{{ x }}", None, "profile_id"),
            ("{{ x }}", "None", "profile_id"),
            (object(), None, "profile_id"),
            ({"a": "{{ x }}"}, {"a": "None"}, "profile_id['a']"),
            ({"a": {"b": ["{{ x }}", 1]}}, {"a": {"b": [None, 1]}}, "profile_id['a']['b'][0]"),
            ([{"name": "a", "value": "{{ x }}"}], [{"name": "a", "value": "None"}], "profile_id[0]['value']"),
        ],
        ids=[
            "template to None",
            "template to text None",
            "object to None",
            "dict value",
            "nested list item",
            "pair value",
        ],
    )
    def test_value_rendered_to_none_is_refused_with_its_location(self, given, rendered, where):
        with pytest.raises(InputError, match=f"^{re.escape(where)} was given, but Airflow rendered it to None"):
            check_rendered("profile_id", given, rendered)

    @pytest.mark.parametrize(
        ("given", "rendered"),
        [
            (None, None),
            ("None", "None"),
            (object(), "None"),
            ({"a": None}, {"a": None}),
            ("{{ x }}", ""),
            ("{{ x }}", {"a": None}),
            (["{{ x }}"], ["a", None]),
        ],
        ids=[
            "None given",
            "text None given",
            "object to text None",
            "dict with None given",
            "template to empty text",
            "template to dict with None",
            "template to list with None",
        ],
    )
    def test_explicit_none_and_other_rendered_values_are_accepted(self, given, rendered):
        check_rendered("profile_id", given, rendered)
