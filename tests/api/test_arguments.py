from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_browseract.api.arguments import InputError, read_id, read_ids, read_path_id, read_seconds
from tests.cases import cases


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

    @cases(
        ("value", "guess"),
        {
            "path": ("https://www.browseract.com/workflow/710028", "710028"),
            "slash at the end": ("https://www.browseract.com/workflow/710028/", "710028"),
            "query": ("https://www.browseract.com/edit?id=710028", "710028"),
            "no digits at the end": ("https://www.browseract.com/workflow/new", None),
            "name": ("Amazon search 5", None),
        },
    )
    def test_text_with_characters_that_no_id_has_is_refused_with_the_digits_of_an_address(self, value, guess):
        with pytest.raises(InputError) as refused:
            read_path_id("workflow_id", value)
        assert str(refused.value).startswith(f"workflow_id is {value!r}.")
        named = f"Perhaps the id is {guess!r}, the end of this address."
        assert (named in str(refused.value)) is (guess is not None)

    @pytest.mark.parametrize("value", [{"a": "confidential"}, ["confidential"], ' {"a": "confidential"}'], ids=repr)
    @pytest.mark.parametrize("argument", ["workflow_id", "browseract_task_id", "profile_id"])
    def test_output_of_a_task_as_id_is_refused_without_showing_it(self, argument, value):
        with pytest.raises(InputError, match=f"{argument} is (of type|the text of a)") as refused:
            read_id(argument, value)
        assert "confidential" not in str(refused.value)


class TestSeveralIds:
    def test_ids_given_singly_or_as_list_are_read_without_duplicates(self):
        assert read_ids("ids", "7") == ["7"]
        assert read_ids("ids", [8, "7", "8"]) == ["8", "7"]

    @pytest.mark.parametrize("given", ["['1', '2']", "LazySelectSequence([])", "1, 2"])
    def test_id_list_rendered_into_text_is_refused_with_a_remedy(self, given):
        with pytest.raises(InputError, match="render_template_as_native_obj=True"):
            read_ids("ids", given)


class TestSeconds:
    @cases(("value", "seconds"), {"integer": (3, 3.0), "float": (0.5, 0.5), "timedelta": (timedelta(minutes=2), 120.0)})
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
