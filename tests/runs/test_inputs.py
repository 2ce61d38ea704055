from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import pytest

from airflow_provider_browseract.runs.inputs import (
    InputError,
    check_callback_url,
    check_rendered,
    is_private,
    read_id,
    read_ids,
    read_input_parameters,
    read_output_path,
    read_seconds,
)

API = "https://api.browseract.com"


class TestInputParameters:
    def test_input_parameters_dict_becomes_pairs_in_dict_order(self):
        assert read_input_parameters({"b": "1", "a": "2"}) == [
            {"name": "b", "value": "1"},
            {"name": "a", "value": "2"},
        ]

    def test_input_parameters_given_as_api_pairs_are_unchanged(self):
        pairs = [{"name": "keyword", "value": "laptops"}]
        assert read_input_parameters(pairs) == pairs

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("007", "007"),
            ("", ""),
            (7, "7"),
            (2.5, "2.5"),
            (True, "true"),
            (["a", 1], '["a", 1]'),
            ({"ö": [None]}, '{"ö": [null]}'),
        ],
        ids=["digits", "empty string", "integer", "float", "boolean", "list", "dict"],
    )
    def test_input_strings_are_unchanged_and_other_values_become_json_text(self, value, text):
        assert read_input_parameters({"name": value}) == [{"name": "name", "value": text}]

    def test_lazy_sequence_of_mapped_results_becomes_a_json_list(self):
        class Lazy(Sequence):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return ["a", "b"][index]

        assert json.loads(read_input_parameters({"all": Lazy()})[0]["value"]) == ["a", "b"]

    def test_mapping_that_is_no_dict_becomes_a_json_object(self):
        value = [MappingProxyType({"a": MappingProxyType({"b": 1})})]
        assert json.loads(read_input_parameters({"all": value})[0]["value"]) == [{"a": {"b": 1}}]

    def test_none_and_empty_dict_both_mean_no_input_parameters(self):
        assert read_input_parameters(None) == read_input_parameters({}) == []

    @pytest.mark.parametrize(
        "value", ["keyword=laptops", 7, b"x", object()], ids=["string", "integer", "bytes", "object"]
    )
    def test_input_parameters_neither_mapping_nor_pairs_are_refused(self, value):
        with pytest.raises(InputError, match="input_parameters is of type"):
            read_input_parameters(value)

    @pytest.mark.parametrize(
        "pair",
        [{"name": "a"}, {"name": "a", "value": "1", "more": 2}, "a=1", ["a", "1"]],
        ids=["value missing", "extra field", "string", "list"],
    )
    def test_invalid_input_pair_is_refused_with_its_position(self, pair):
        with pytest.raises(InputError, match=r"input_parameters\[1\] is not a pair"):
            read_input_parameters([{"name": "ok", "value": "1"}, pair])

    def test_duplicate_input_name_is_refused(self):
        with pytest.raises(InputError, match="'a' twice"):
            read_input_parameters([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])

    @pytest.mark.parametrize("given", [{"keyword": None}, [{"name": "keyword", "value": None}]], ids=["dict", "pairs"])
    def test_input_with_value_none_is_refused_by_name(self, given):
        with pytest.raises(InputError, match=r"input_parameters\['keyword'\] is None\. Give a value, or leave"):
            read_input_parameters(given)

    @pytest.mark.parametrize("name", ["", "  ", 3, None], ids=["empty", "blank", "integer", "Python None"])
    def test_input_name_that_is_empty_or_not_a_string_is_refused(self, name):
        with pytest.raises(InputError, match="Names are strings"):
            read_input_parameters({name: "1"})

    @pytest.mark.parametrize(
        "value",
        [datetime(2026, 1, 1), {1, 2}, b"bytes", float("nan"), float("inf"), {"deep": [object()]}],
        ids=["datetime", "set", "bytes", "NaN", "infinity", "nested object"],
    )
    def test_input_value_not_serializable_as_json_is_refused_by_name(self, value):
        with pytest.raises(InputError, match=r"input_parameters\['when'\] cannot be written as JSON"):
            read_input_parameters({"when": value})


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


class TestCallbackUrls:
    @pytest.mark.parametrize("url", ["https://example.com/hook", "http://example.com:8080/a?b=c", "https://1.1.1.1/"])
    def test_callback_url_with_public_http_address_is_accepted(self, url):
        assert check_callback_url("callback_url", url, api_base_url=API) == url

    @pytest.mark.parametrize("url", [None, ""], ids=["Python None", "empty"])
    def test_callback_url_none_or_empty_means_no_callback_url(self, url):
        assert check_callback_url("callback_url", url, api_base_url=API) is None

    def test_callback_url_of_2048_characters_is_accepted_and_of_2049_refused(self):
        longest = "https://example.com/".ljust(2048, "x")
        assert check_callback_url("callback_url", longest, api_base_url=API) == longest
        with pytest.raises(InputError, match=r"callback_url has 2049 characters.*2048"):
            check_callback_url("callback_url", longest + "x", api_base_url=API)

    @pytest.mark.parametrize(
        "url", ["ftp://example.com", "example.com/hook", "https://", "http://[::1", "http://a:port/", 7]
    )
    def test_callback_url_that_is_not_an_http_address_is_refused(self, url):
        with pytest.raises(InputError, match="callback_url is"):
            check_callback_url("callback_url", url, api_base_url=API)

    @pytest.mark.parametrize(
        ("url", "character", "encoded"),
        [
            ("https://example.com/\u00fc/t0ken", r"'\\xfc'", "%C3%BC"),
            ("https://b\u00fccher.example/", r"'\\xfc'", "%C3%BC"),
            ("https://example.com/a b", "' '", "%20"),
            ("https://example.com/a\nb", r"'\\n'", "%0A"),
            ("https://example.com/\x7f", r"'\\x7f'", "%7F"),
            ("https://example.com/\ud800", r"'\\ud800'", "%3F"),
        ],
        ids=["path", "host", "space", "line break", "control character", "lone surrogate"],
    )
    def test_callback_url_that_is_not_printable_ascii_is_refused_with_the_encoded_character(
        self, url, character, encoded
    ):
        with pytest.raises(
            InputError, match=rf"callback_url contains the character {character}.*\({encoded}\)"
        ) as caught:
            check_callback_url("callback_url", url, api_base_url=API)
        assert "t0ken" not in str(caught.value)

    @pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "10.1.2.3", "[::1]", "airflow", "web.internal"])
    def test_private_callback_url_is_refused_unless_the_api_is_private_too(self, host):
        url = f"http://{host}/hook"
        with pytest.raises(InputError, match="which BrowserAct cannot reach"):
            check_callback_url("callback_url", url, api_base_url=API)
        assert check_callback_url("callback_url", url, api_base_url="http://127.0.0.1:8010") == url

    def test_callback_url_error_does_not_show_the_token_in_the_url(self):
        with pytest.raises(InputError) as caught:
            check_callback_url("callback_url", "https://10.0.0.1/hook/t0ken", api_base_url=API)
        assert "t0ken" not in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "private"),
        [
            ("example.com", False),
            ("8.8.8.8", False),
            ("169.254.1.1", True),
            ("127.1", True),
            ("0x7f.0.0.1", True),
            ("169.254.43518", True),
            ("64:ff9b::7f00:1", True),
            ("64:ff9b::808:808", False),
        ],
    )
    def test_host_in_unusual_notation_is_classified_as_private_or_public(self, host, private):
        assert is_private(host) is private


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
            ("", "Give a folder"),
            (None, "Give a folder"),
            ("None", "Give a folder"),
            ("/", "Give a folder"),
            ("file:///", "Give a folder"),
            ("s3:///x", "Give a folder"),
            ("results", "Give a whole path"),
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


class TestSeveralIds:
    def test_ids_given_singly_or_as_list_are_read_without_duplicates(self):
        assert read_ids("ids", "7") == ["7"]
        assert read_ids("ids", [8, "7", "8"]) == ["8", "7"]

    @pytest.mark.parametrize("given", ["['1', '2']", "LazySelectSequence([])", "1, 2"])
    def test_id_list_rendered_into_text_is_refused_with_a_remedy(self, given):
        with pytest.raises(InputError, match="render_template_as_native_obj=True"):
            read_ids("ids", given)


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
