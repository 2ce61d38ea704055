"""What is refused before a run is started: when the DAG is parsed, or in the worker without a retry."""

import asyncio
import re
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import CONTACTS, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers.watcher import TaskFinishedTrigger
from tests.helpers.catalogue import UNPUBLISHED
from tests.helpers.world import TaskInstance

KEYWORD = {"keyword": "pens"}
WORKFLOW = (operators.RunWorkflowOperator, {"workflow_id": SEARCH.id, "input_parameters": KEYWORD})
BOT = (operators.RunBotOperator, {"bot_id": CONTACTS.id, "input": {"company_name": "Example Corp"}})
TEMPLATE = (operators.RunTemplateOperator, {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": KEYWORD})
BOT_TEMPLATE = (operators.RunBotTemplateOperator, {"template_id": TEMPLATE_SEARCH.id, "input": KEYWORD})
SENSOR = (TaskSensor, {"browseract_task_id": "1"})
STOP = (operators.StopTaskOperator, {"browseract_task_id": "1"})
RESUME = (operators.ResumeTaskOperator, {"browseract_task_id": "1"})
FLAG, SECONDS, CREDITS = ". Use True or False", ". Use a positive number of seconds", ". Use a whole number of credits"
FLAGS = (
    *("cancel_on_kill", "deferrable", "dry_run", "durable"),
    *("save_browser_data", "show_live_view", "validate_inputs", "wait_for_completion"),
)

CONSTANTS = [
    (WORKFLOW, {"on_paused": "stop"}, "on_paused is 'stop'. Use one of 'wait', 'fail', 'ask'"),
    (WORKFLOW, {"on_paused": "ask", "wait_for_completion": False}, "needs wait_for_completion=True"),
    (WORKFLOW, {"on_paused_callback": print, "wait_for_completion": False}, "needs wait_for_completion=True"),
    (WORKFLOW, {"on_paused_callback": asyncio.sleep}, "they are not awaited"),
    (WORKFLOW, {"on_paused_callback": "chat"}, "on_paused_callback is 'chat'. Pass a notifier or a function"),
    (WORKFLOW, {"on_paused_callback": [print, None]}, "Pass a notifier or a function, or a list"),
    (WORKFLOW, {"on_budget": "ask"}, "on_budget is 'ask'. Use one of 'fail', 'wait'"),
    *((WORKFLOW, {name: "False"}, f"{name} is 'False'{FLAG}") for name in FLAGS),
    (WORKFLOW, {"output_format": "xml"}, "output_format is 'xml'. Use one of 'auto', 'json', 'csv', 'text'"),
    (WORKFLOW, {"output_path": "/x", "wait_for_completion": False}, "output_path needs wait_for_completion=True"),
    (WORKFLOW, {"poll_interval": 0}, f"poll_interval is 0{SECONDS}"),
    *((WORKFLOW, {"queue_timeout": each}, f"queue_timeout is {each!r}{SECONDS}") for each in (0, -1, "soon", True)),
    *((WORKFLOW, {"timeout": each}, f"timeout is {each!r}{SECONDS}") for each in (0, -1, "7h")),
    *((WORKFLOW, {"max_credits": x}, f"max_credits is {x!r}{CREDITS}") for x in (0, -1, True, 1.5, "", "abc")),
    (WORKFLOW, {"max_credits": 9, "wait_for_completion": False}, "max_credits needs wait_for_completion=True"),
    (WORKFLOW, {"webhook": "yes"}, "webhook is 'yes'. Use True or False"),
    (WORKFLOW, {"webhook": True}, "webhook=True needs deferrable=True"),
    (WORKFLOW, {"webhook": True, "deferrable": True, "wait_for_completion": False}, "wait_for_completion=True"),
    (WORKFLOW, {"webhook": True, "dry_run": True}, "webhook=True needs deferrable=True"),
    *(
        (WORKFLOW, {"webhook": True, "deferrable": True, name: "{{ params.url }}"}, "webhook=True goes with neither")
        for name in ("callback_url", "status_change_callback_url")
    ),
    (SENSOR, {"show_live_view": "no"}, f"show_live_view is 'no'{FLAG}"),
    (SENSOR, {"output_format": "xml"}, "output_format is 'xml'"),
    (SENSOR, {"deferrable": "yes"}, f"deferrable is 'yes'{FLAG}"),
]
WATCHED = [
    ({"status": "running"}, "status is 'running'. Use one or several of: finished, canceled, failed"),
    ({"status": []}, "status is []"),
    ({"workflow_id": ""}, "workflow_id"),
    ({"bot_id": "a/b"}, "bot_id is 'a/b'"),
    ({"poll_interval": 0}, "poll_interval is 0. Use a positive number"),
    # Airflow can miss an event that follows another within moments.
    ({"poll_interval": 9}, "poll_interval is 9. Use at least 10 seconds"),
]

NO_ID, TO_NONE = "12345", "was given, but Airflow rendered it to None"
QUOTES = "remove the quotes around it"
VALUES = [
    (WORKFLOW, {"workflow_id": ""}, "workflow_id is ''"),
    (WORKFLOW, {"workflow_id": NO_ID}, "Check the id of the workflow"),
    (WORKFLOW, {"workflow_id": CONTACTS.id}, "It is the id of a bot, which RunBotOperator runs"),
    (WORKFLOW, {"workflow_id": TEMPLATE_SEARCH.id}, "It is the id of a template, which RunTemplateOperator"),
    (WORKFLOW, {"workflow_id": f"https://x.example/{SEARCH.id}/"}, "not a name or an address"),
    (WORKFLOW, {"workflow_id": UNPUBLISHED.id}, "Publish the workflow"),
    (WORKFLOW, {"input_parameters": '{"keyword": "pens"}'}, QUOTES),
    (WORKFLOW, {"input_parameters": {}}, "input_parameters lacks the required name 'keyword'"),
    (WORKFLOW, {"input_parameters": {}, "dry_run": True}, "lacks the required name 'keyword'"),
    (WORKFLOW, {"input_parameters": {}, "validate_inputs": False}, "Give each required input a value"),
    (WORKFLOW, {"input_parameters": {"keywrod": "a"}}, "'keywrod' (did you mean 'keyword'?)"),
    (WORKFLOW, {"input_parameters": {"rank": 1, "url": "x"}}, "the unknown name 'rank' and has the unknown name 'url'"),
    (WORKFLOW, {"input_parameters": {"keyword": ""}}, "Required input is missing"),
    (WORKFLOW, {"input_parameters": {"keyword": "{{ nothing }}"}}, f"input_parameters['keyword'] {TO_NONE}"),
    (WORKFLOW, {"status_change_callback_url": "ftp://example.com"}, "status_change_callback_url is not an http"),
    (WORKFLOW, {"profile_id": ""}, "profile_id is ''"),
    (WORKFLOW, {"profile_id": "None"}, "save_browser_data=True"),
    (WORKFLOW, {"profile_id": "{{ nothing }}"}, f"profile_id {TO_NONE}"),
    (WORKFLOW, {"profile_id": {"token": "x"}}, "profile_id is of type dict. Use the id of a browser profile"),
    (WORKFLOW, {"profile_id": '{"token": "x"}'}, 'log_in.output["profile_id"]'),
    (WORKFLOW, {"profile_id": "404"}, "refused the start"),
    (WORKFLOW, {"output_path": ""}, "output_path is ''"),
    (WORKFLOW, {"output_path": "nostore://x/y"}, "the filesystem for nostore is not available here"),
    (WORKFLOW, {"output_path": "/proc/no/such"}, "cannot write and check a file there"),
    (WORKFLOW, {"webhook": True, "deferrable": True}, "webhook=True needs webhook_base_url in the extra of connection"),
    (BOT, {"bot_id": "../runs"}, "bot_id is '../runs'"),
    (BOT, {"bot_id": "templates"}, "bot_id is 'templates'. Use the id"),
    (BOT, {"bot_id": NO_ID}, "Check the id of the workflow or bot"),
    (BOT, {"bot_id": TEMPLATE_SEARCH.id}, "It is the id of a bot template, which RunBotTemplateOperator"),
    (BOT, {"bot_id": UNPUBLISHED.id}, "Publish the workflow or bot in the BrowserAct dashboard"),
    (BOT, {"input": [{"name": "company_name", "value": "a"}]}, "RunWorkflowOperator"),
    (BOT, {"input": "company_name"}, "input is a text instead of a dict"),
    (BOT, {"input": {"company_name": ""}}, "input['company_name'] does not follow the rule minLength: 1"),
    (BOT, {"input": {"company_name": "{{ nothing }}"}}, f"input['company_name'] {TO_NONE}"),
    (TEMPLATE, {"workflow_template_id": NO_ID}, "Check the template's id"),
    (TEMPLATE, {"region": "XX"}, "Use a code from BrowserActHook.get_region_list"),
    (TEMPLATE, {"region": ""}, """region is ''. Use a code such as "US", or leave region out for the default."""),
    (TEMPLATE, {"input_parameters": {"Keyword": "pens"}}, "'Keyword' (did you mean 'keyword'?)"),
    (BOT_TEMPLATE, {"template_id": NO_ID}, "Check the template's id"),
    (BOT_TEMPLATE, {"region": "XX"}, "or get_bot_region_list for bots"),
    (SENSOR, {"browseract_task_id": "404"}, "It must be the id of a BrowserAct task, not Airflow's task_id"),
    (SENSOR, {"browseract_task_id": ""}, "browseract_task_id is ''"),
    (SENSOR, {"browseract_task_id": "scrape_orders"}, """BrowserAct task, such as search.output["task_id"]"""),
    (SENSOR, {"browseract_task_id": "1/status"}, "browseract_task_id is '1/status'"),
    (SENSOR, {"output_path": "{{ nothing }}"}, f"output_path {TO_NONE}"),
    (SENSOR, {"output_path": "here"}, "Use an absolute path"),
    *((each, {"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'") for each in (SENSOR, STOP, RESUME)),
]
NO_HOST = "http://browseract.invalid/v2"
FAILS, IN_THE_EXTRA = AirflowFailException, "Connection 'browseract_default': extra"
CONNECTIONS = [
    ({"password": ""}, FAILS, "Connection 'browseract_default' has no API key"),
    ({"password": "", "login": "app-emulator"}, FAILS, "has no API key"),
    ({"password": "Bearer app-emulator"}, FAILS, "has spaces, quotes or other characters that no key has"),
    ({"password": '"app-emulator"'}, FAILS, "Enter only the key, without quotes"),
    ({"password": "app-wrong"}, errors.AuthenticationError, "API key (password) field of the Airflow connection"),
    ({"extra": {"daily_credits": 0}}, FAILS, f"{IN_THE_EXTRA} 'daily_credits': Input should be greater than 0"),
    ({"extra": {"webhook_base_url": "https://a.example/browseract/callback"}}, FAILS, "Remove /browseract/callback"),
    ({"host": NO_HOST}, errors.UnexpectedResponseError, f"API address {NO_HOST}"),
]


def told(row):
    (operator, _), _, words = row
    return f"{operator.__name__}: {words}"


@pytest.mark.parametrize("row", CONSTANTS, ids=told)
def test_constant_argument_is_refused_when_the_dag_is_parsed_and_in_a_mapped_task(row, world):
    (operator, given), arguments, words = row
    with pytest.raises(errors.InputError, match=f"^Task 'run': .*{re.escape(words)}"):
        operator(task_id="run", **{**given, **arguments})
    # Airflow makes a mapped operator in the worker, so there is no import error.
    source = next(iter(given))
    with DAG("mapped", schedule=None):
        fixed = {**{name: value for name, value in given.items() if name != source}, **arguments}
        mapped = operator.partial(task_id="run", **fixed).expand(**{source: [given[source]]})
    ti = TaskInstance(world, lambda: mapped.unmap({source: given[source]}))
    with pytest.raises(AirflowFailException, match=re.escape(words)):
        ti.run(ti.next_try())
    assert world.emulator.requests == []


@pytest.mark.parametrize(("arguments", "words"), WATCHED, ids=str)
def test_argument_of_the_watcher_is_refused_when_the_dag_is_parsed(arguments, words):
    with pytest.raises(errors.InputError, match=re.escape(words)):
        TaskFinishedTrigger(**arguments)


@pytest.mark.parametrize("row", VALUES, ids=told)
def test_value_is_refused_in_the_worker_without_a_retry_and_without_a_run(row, world):
    (operator, given), arguments, words = row
    ti = TaskInstance(world, lambda: operator(task_id="run", **{**given, **arguments}))
    with pytest.raises(AirflowFailException, match=re.escape(words)):
        ti.run({**ti.next_try(), "nothing": None}, renders=True)
    assert world.emulator.tasks == []


@pytest.mark.parametrize(("fields", "error", "words"), CONNECTIONS, ids=str)
def test_connection_is_refused_without_a_run_and_without_its_key(fields, error, words, world):
    world.connect(**fields)
    given: dict[str, Any] = {"task_id": "run", "workflow_id": ORDERS.id, "deferrable": True}
    ti = TaskInstance(world, lambda: operators.RunWorkflowOperator(**given))
    with pytest.raises(error, match=re.escape(words)) as refused:
        ti.run(ti.next_try())
    assert "app-" not in str(refused.value)
    assert world.emulator.tasks == []
