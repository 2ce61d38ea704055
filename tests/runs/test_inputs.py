from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

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
    def test_a_dict_becomes_pairs_in_its_order(self):
        assert read_input_parameters({"b": "1", "a": "2"}) == [
            {"name": "b", "value": "1"},
            {"name": "a", "value": "2"},
        ]

    def test_the_apis_own_pairs_are_taken_as_they_are(self):
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
    )
    def test_strings_stay_and_other_values_become_json_text(self, value, text):
        assert read_input_parameters({"name": value}) == [{"name": "name", "value": text}]

    def test_a_lazy_sequence_of_mapped_results_counts_as_a_list(self):
        class Lazy(Sequence):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return ["a", "b"][index]

        assert json.loads(read_input_parameters({"all": Lazy()})[0]["value"]) == ["a", "b"]

    def test_none_and_an_empty_dict_are_no_inputs(self):
        assert read_input_parameters(None) == read_input_parameters({}) == []

    @pytest.mark.parametrize("value", ["keyword=laptops", 7, b"x", object()])
    def test_what_is_neither_mapping_nor_pairs_is_refused(self, value):
        with pytest.raises(InputError, match="input_parameters is of type"):
            read_input_parameters(value)

    @pytest.mark.parametrize("pair", [{"name": "a"}, {"name": "a", "value": "1", "more": 2}, "a=1", ["a", "1"]])
    def test_an_element_that_is_no_pair_is_named_by_its_position(self, pair):
        with pytest.raises(InputError, match=r"input_parameters\[1\] is not a pair"):
            read_input_parameters([{"name": "ok", "value": "1"}, pair])

    def test_a_name_given_twice_is_refused(self):
        with pytest.raises(InputError, match="'a' twice"):
            read_input_parameters([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])

    @pytest.mark.parametrize("given", [{"keyword": None}, [{"name": "keyword", "value": None}]], ids=["dict", "pairs"])
    def test_an_input_that_is_none_is_refused_and_not_sent_as_null(self, given):
        with pytest.raises(InputError, match=r"input_parameters\['keyword'\] is None\. Give a value, or leave"):
            read_input_parameters(given)

    @pytest.mark.parametrize("name", ["", "  ", 3, None])
    def test_a_name_that_is_no_name_is_refused(self, name):
        with pytest.raises(InputError, match="Names are strings"):
            read_input_parameters({name: "1"})

    @pytest.mark.parametrize(
        "value", [datetime(2026, 1, 1), {1, 2}, b"bytes", float("nan"), float("inf"), {"deep": [object()]}]
    )
    def test_a_value_that_is_not_json_is_named(self, value):
        with pytest.raises(InputError, match=r"input_parameters\['when'\] cannot be written as JSON"):
            read_input_parameters({"when": value})


class TestIds:
    @pytest.mark.parametrize(("value", "text"), [("16429034742537847", "16429034742537847"), (7, "7"), (" 7 ", "7")])
    def test_an_id_is_a_string_or_a_whole_number(self, value, text):
        assert read_id("workflow_id", value) == text

    @pytest.mark.parametrize("value", ["", " ", None, "None", True, 1.5, ["7"]])
    def test_anything_else_is_refused_by_the_arguments_name(self, value):
        with pytest.raises(InputError, match="workflow_id is"):
            read_id("workflow_id", value)


class TestSeconds:
    @pytest.mark.parametrize(("value", "seconds"), [(3, 3.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)])
    def test_numbers_and_timedeltas_are_read(self, value, seconds):
        assert read_seconds("timeout", value) == seconds

    @pytest.mark.parametrize("value", [0, -1, timedelta(0), None, "5", True, float("nan"), float("inf"), 1e12])
    def test_what_is_not_a_positive_length_of_time_is_refused(self, value):
        with pytest.raises(InputError, match="timeout is"):
            read_seconds("timeout", value)


class TestCallbackUrls:
    @pytest.mark.parametrize("url", ["https://example.com/hook", "http://example.com:8080/a?b=c", "https://1.1.1.1/"])
    def test_a_public_http_address_is_taken(self, url):
        assert check_callback_url("callback_url", url, api_base_url=API) == url

    @pytest.mark.parametrize("url", [None, ""])
    def test_none_is_none(self, url):
        assert check_callback_url("callback_url", url, api_base_url=API) is None

    def test_2048_characters_are_taken_and_2049_refused(self):
        longest = "https://example.com/".ljust(2048, "x")
        assert check_callback_url("callback_url", longest, api_base_url=API) == longest
        with pytest.raises(InputError, match=r"callback_url has 2049 characters.*2048"):
            check_callback_url("callback_url", longest + "x", api_base_url=API)

    @pytest.mark.parametrize(
        "url", ["ftp://example.com", "example.com/hook", "https://", "https://a b/", "http://[::1", "http://a:port/", 7]
    )
    def test_what_is_not_an_http_address_is_refused(self, url):
        with pytest.raises(InputError, match="callback_url is"):
            check_callback_url("callback_url", url, api_base_url=API)

    @pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "10.1.2.3", "[::1]", "airflow", "web.internal"])
    def test_a_private_address_is_refused_unless_the_api_itself_is_private(self, host):
        url = f"http://{host}/hook"
        with pytest.raises(InputError, match="which BrowserAct cannot reach"):
            check_callback_url("callback_url", url, api_base_url=API)
        assert check_callback_url("callback_url", url, api_base_url="http://127.0.0.1:8010") == url

    def test_the_address_itself_is_in_no_message(self):
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
    def test_privacy_is_judged_by_name_or_number(self, host, private):
        assert is_private(host) is private


class TestAPathInObjectStorage:
    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ("s3://aws@bucket/a/b/", "s3://aws@bucket/a/b"),
            ("gs://bucket", "gs://bucket"),
            ("file:///data/x", "file:///data/x"),
            (" /data/x ", "/data/x"),
        ],
    )
    def test_comes_back_without_a_slash_behind(self, given, path):
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
    )
    def test_that_is_none_is_refused(self, given, message):
        with pytest.raises(InputError, match=message):
            read_output_path(given)


class TestSeveralIds:
    def test_are_one_or_several_each_once(self):
        assert read_ids("ids", "7") == ["7"]
        assert read_ids("ids", [8, "7", "8"]) == ["8", "7"]

    @pytest.mark.parametrize("given", ["['1', '2']", "LazySelectSequence([])", "1, 2"])
    def test_that_were_rendered_into_a_text_are_refused_with_the_way_out(self, given):
        with pytest.raises(InputError, match="render_template_as_native_obj=True"):
            read_ids("ids", given)


class TestWhatBecameNoneWhenItWasRendered:
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
    )
    def test_is_refused_with_the_place_named(self, given, rendered, where):
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
    )
    def test_a_none_that_was_given_and_a_literal_none_text_are_accepted(self, given, rendered):
        check_rendered("profile_id", given, rendered)
