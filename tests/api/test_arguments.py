"""Arguments that several methods and operators take. The stories about what is refused have more of them."""

from datetime import timedelta

import pytest

from airflow_provider_browseract.api.arguments import read_id, read_ids, read_path_id, read_seconds
from airflow_provider_browseract.exceptions import InputError
from tests.helpers.cases import cases

NO_NAME = "the id that the BrowserAct dashboard or an earlier task shows, such as 14721148181551181, not a name"
A_LIST = "render_template_as_native_obj=True"


@cases(
    ("id", read_id, " 16429034742537847 ", "16429034742537847"),
    ("id as integer", read_id, 7, "7"),
    ("one id of several", read_ids, "7", ["7"]),
    ("several ids", read_ids, [8, "7", "8"], ["8", "7"]),
    ("integer as seconds", read_seconds, 3, 3.0),
    ("timedelta", read_seconds, timedelta(minutes=2), 120.0),
)
def test_value_is_read(read, value, result):
    assert read("argument", value) == result


@cases(
    *((f"{value!r} as id", read_id, value, "is ") for value in ("", " ", None, "None", "NOTSET", True, 1.5)),
    ("f-string without f", read_id, "{workflow_id}", "which was not replaced. A template needs two braces."),
    ("address without an id", read_path_id, "https://www.browseract.com/workflow/new", "not a name or an address."),
    *((f"{name!r} as id", read_path_id, name, NO_NAME) for name in ("Amazon search 5", "Search", "templates")),
    *((f"{text} as ids", read_ids, text, A_LIST) for text in ("['1', '2']", "LazySelectSequence([])", "1, 2")),
    *(
        (f"{value!r} as seconds", read_seconds, value, f"is {value!r}. Use a positive number of seconds")
        for value in (0, -1, timedelta(0), None, "5", True, float("nan"), float("inf"), 1e12)
    ),
)
def test_value_that_cannot_be_used_is_refused_with_the_argument_and_a_remedy(read, value, words):
    with pytest.raises(InputError) as refused:
        read("argument", value)
    assert str(refused.value).startswith("argument is ")
    assert words in str(refused.value)


@pytest.mark.parametrize("value", [{"a": "confidential"}, ["confidential"], ' {"a": "confidential"}'], ids=repr)
@pytest.mark.parametrize("argument", ["workflow_id", "browseract_task_id", "profile_id"])
def test_output_of_a_task_as_id_is_refused_without_showing_it(argument, value):
    with pytest.raises(InputError, match=f"{argument} is (of type|the text of a)") as refused:
        read_id(argument, value)
    assert "confidential" not in str(refused.value)
