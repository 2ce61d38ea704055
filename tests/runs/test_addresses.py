from __future__ import annotations

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.runs.addresses import check_callback_url, is_private, read_output_path

API = "https://api.browseract.com"


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
            ("168.63.129.16", True),
            ("168.63.129.17", False),
            ("192.0.0.192", True),
            ("64:ff9b::192.0.0.192", True),
            ("127.1", True),
            ("0x7f.0.0.1", True),
            ("169.254.43518", True),
            ("64:ff9b::7f00:1", True),
            ("64:ff9b::808:808", False),
        ],
    )
    def test_host_in_any_notation_is_classified_as_private_or_public(self, host, private):
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
