from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import Output
from airflow_provider_browseract.runs.outputs import read_output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"a": 1}]', [{"a": 1}]),
        ('\ufeff{"a": null}', {"a": None}),
        ("12", 12),
        ("plain words", "plain words"),
        ('{"broken": ', '{"broken": '),
        ("NaN", "NaN"),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ("[123456789012345678901234567890]", "[123456789012345678901234567890]"),
        ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
        (r'["\ud800"]', r'["\ud800"]'),
        ('["\ud800"]', '["?"]'),
        ('{"a": {"__classname__": "b"}}', '{"a": {"__classname__": "b"}}'),
        ('["\u00fc\U0001f600", true, null, 1.5]', ["\u00fc\U0001f600", True, None, 1.5]),
        ('{"a": Infinity}', '{"a": Infinity}'),
        ("[" * 100_000, "[" * 100_000),
        ("", None),
        (None, None),
    ],
)
def test_json_text_is_parsed_and_other_text_kept(text, value):
    assert read_output(Output(string=text)) == value


def test_files_come_alongside():
    output = Output(string='["row"]', files=("https://files.example/1",))
    assert read_output(output) == {"output": ["row"], "files": ["https://files.example/1"]}


def test_files_alone_leave_the_output_empty():
    assert read_output(Output(string="", files=("u",))) == {"output": None, "files": ["u"]}


def test_no_output_is_none():
    assert read_output(None) is None
