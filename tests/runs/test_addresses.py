import re
from urllib.parse import quote

import pytest

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.addresses import check_callback_url, is_private
from tests.helpers.cases import cases

LONGEST = "https://example.com/".ljust(2048, "x")


def checked(url, api="https://api.browseract.com"):
    return check_callback_url("callback_url", url, api_base_url=api)


GOOD = [
    "https://example.com/hook",
    "http://example.com:8080/a?b=c",
    "https://1.1.1.1/",
    "https://example.com/%2Fa?b=c,d&e=f/g#h",
    LONGEST,
    None,
    "",
]


@pytest.mark.parametrize("url", GOOD)
def test_public_callback_url_is_accepted_and_an_empty_one_means_none(url):
    assert checked(url) == (url or None)


@cases(
    *(
        (repr(url), url, "callback_url is")
        for url in ("ftp://example.com", "example.com/hook", "https://", "http://[::1", "http://a:port/", 7)
    ),
    ("2049 characters", LONGEST + "x", r"callback_url has 2049 characters.*2048"),
    ("path", "https://example.com/\u00fc/t0ken", r"contains the character '\\xfc'.*\(%C3%BC\)"),
    ("space", "https://example.com/a b", r"contains the character ' '.*\(%20\)"),
    ("line break", "https://example.com/a\nb", r"contains the character '\\n'.*\(%0A\)"),
    ("lone surrogate", "https://example.com/\ud800", r"contains the character '\\ud800'.*\(%3F\)"),
    *(
        (url, url, rf"contains the character {re.escape(repr(odd))}.*\({quote(odd)}\)")
        for url, odd in {
            **{f"https://example.com/{odd}x": odd for odd in '"<>\\^`{|}'},
            **{f"https://example.com/?a={odd}": odd for odd in "[]%"},
            "https://example.com/%2": "%",
            "https://example.com/#a#b": "#",
        }.items()
    ),
    ("private", "https://10.0.0.1/hook/t0ken", "has a private host, which BrowserAct cannot reach"),
)
def test_callback_url_that_cannot_be_called_is_refused_without_its_token(url, message):
    with pytest.raises(InputError, match=message) as caught:
        checked(url)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "10.1.2.3", "[::1]", "airflow", "web.internal"])
def test_private_callback_url_is_refused_unless_the_api_is_private_too(host):
    url = f"http://{host}/hook"
    with pytest.raises(InputError, match="which BrowserAct cannot reach"):
        checked(url)
    assert checked(url, api="http://127.0.0.1:8010") == url


PRIVATE = "169.254.1.1 168.63.129.16 192.0.0.192 64:ff9b::192.0.0.192 127.1 0x7f.0.0.1 169.254.43518 64:ff9b::7f00:1"
PUBLIC = "example.com 8.8.8.8 168.63.129.17 64:ff9b::808:808"


def test_host_in_any_notation_is_classified_as_private_or_public():
    assert [host for host in PRIVATE.split() if not is_private(host)] == []
    assert [host for host in PUBLIC.split() if is_private(host)] == []
