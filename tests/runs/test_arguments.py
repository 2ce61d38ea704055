from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_provider_browseract.api.arguments import InputError, read_id
from airflow_provider_browseract.runs.arguments import check_rendered, read_ids, read_output_path, read_seconds


class TestIds:
    @pytest.mark.parametrize(("value", "text"), [("16429034742537847", "16429034742537847"), (7, "7"), (" 7 ", "7")])
    def test_id_given_as_string_or_integer_is_read_as_text(self, value, text):
        assert read_id("workflow_id", value) == text

    @pytest.mark.parametrize(
        "value",
        ["", " ", None, "None", True, 1.5, ["7"]],
        ids=["empty", "blank", "Python None", "text None", "boolean", "float", "list"],
    )
    def test_invalid_id_is_refused_with_the_argument_name(self, value):
        with pytest.raises(InputError, match="workflow_id is"):
            read_id("workflow_id", value)


class TestSeveralIds:
    def test_ids_given_singly_or_as_list_are_read_without_duplicates(self):
        assert read_ids("ids", "7") == ["7"]
        assert read_ids("ids", [8, "7", "8"]) == ["8", "7"]

    @pytest.mark.parametrize("given", ["['1', '2']", "LazySelectSequence([])", "1, 2"])
    def test_id_list_rendered_into_text_is_refused_with_a_remedy(self, given):
        with pytest.raises(InputError, match="render_template_as_native_obj=True"):
            read_ids("ids", given)


class TestSeconds:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [(3, 3.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)],
        ids=["integer", "float", "timedelta"],
    )
    def test_duration_given_as_number_or_timedelta_is_read_in_seconds(self, value, seconds):
        assert read_seconds("timeout", value) == seconds

    @pytest.mark.parametrize(
        "value",
        [0, -1, timedelta(0), None, "5", True, float("nan"), float("inf"), 1e12],
        ids=["zero", "negative", "zero timedelta", "Python None", "text", "boolean", "NaN", "infinity", "too long"],
    )
    def test_invalid_duration_is_refused_with_the_argument_name(self, value):
        with pytest.raises(InputError, match="timeout is"):
            read_seconds("timeout", value)


class TestOutputPath:
    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ("s3://aws@bucket/a/b/", "s3://aws@bucket/a/b"),
            ("gs://bucket", "gs://bucket"),
            ("file:///data/x", "file:///data/x"),
            (" /data/x ", "/data/x"),
        ],
    )
    def test_output_path_is_read_without_trailing_slash(self, given, path):
        assert read_output_path(given) == path

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("", "Use a folder"),
            (None, "Use a folder"),
            ("None", "Use a folder"),
            ("/", "Use a folder"),
            ("file:///", "Use a folder"),
            ("s3:///x", "Use a folder"),
            ("results", "Use an absolute path"),
        ],
        ids=[
            "empty",
            "Python None",
            "text None",
            "root folder",
            "root folder as file URL",
            "bucket missing",
            "relative path",
        ],
    )
    def test_invalid_output_path_is_refused_with_a_remedy(self, given, message):
        with pytest.raises(InputError, match=message):
            read_output_path(given)


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
