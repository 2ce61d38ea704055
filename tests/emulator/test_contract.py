"""The emulator against the vendor's own OpenAPI documents, which are not part of this project."""

from importlib.metadata import version

import hypothesis
import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import AGENT_HUMAN, CONTACTS, EXPORT, HUMAN, SEARCH, TEMPLATE_SEARCH, Emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from tests.helpers.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT, PRICES, add
from tests.helpers.vendor import document

from .conftest import Account

DOCUMENTS = list(map(document, ApiVersion))
openapi = pytest.importorskip("schemathesis").openapi
from schemathesis.specs.openapi import checks  # noqa: E402

SCHEMAS = dict(zip(("v2", "v3"), map(openapi.from_dict, DOCUMENTS), strict=True))
# The documents have no response to random requests without a key or with a wrong one: they do not declare 401.
OF_V2, OF_V3 = (openapi.from_dict({**each, "security": []}) for each in DOCUMENTS)
MANY = hypothesis.settings(deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
WITH_PAPER = {"keyword": "paper"}


@pytest.fixture(scope="module")
def emulator():
    """An emulator that random requests cannot fill."""
    emulator = add(Emulator(concurrency=1000))
    emulator.set_workflow("*", duration=0.002)
    with emulator.serve():
        yield emulator


def validate(emulator, case):
    # Requests that the document allows are still refused if they name something that does not exist, and if they have
    # additional fields, which the document does not exclude.
    left_out = [checks.positive_data_acceptance]
    if tuple(int(part) for part in version("schemathesis").split(".")[:2]) < (4, 30):
        # It takes parameters for invalid that it then does not send at all.
        left_out.append(checks.negative_data_rejection)
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    return case.call_and_validate(base_url=emulator.url, headers=headers, excluded_checks=left_out)


@OF_V2.parametrize()
@MANY
def test_responses_of_v2_to_random_requests_conform_to_the_vendors_document(case, emulator):
    validate(emulator, case)


@OF_V3.parametrize()
@MANY
def test_responses_of_v3_to_random_requests_conform_to_the_vendors_document(case, emulator):
    # At these addresses, the document has other endpoints.
    hypothesis.assume((case.path_parameters or {}).get("bot_id") not in ("runs", "templates", "regions"))
    validate(emulator, case)


class Documented(Account):
    """Calls endpoints, and checks that each response is a success as in the document."""

    def __init__(self, emulator):
        self.emulator = emulator

    def call(self, endpoint, **given):
        called = ENDPOINTS[endpoint]
        ids = {key: given.pop(key) for key in list(given) if f"{{{key}}}" in called.path}
        is_start = endpoint.startswith(("run-task", "create-"))
        parts = {"body": given, "media_type": "application/json"} if is_start else {"query": given}
        operation = SCHEMAS[called.version][called.path][called.method]
        response = validate(self.emulator, operation.Case(path_parameters=ids, **parts))
        assert response.status_code == 200, response.text
        return response.json() if response.content else None

    def wait_for(self, expected):
        self.emulator.wait_until(lambda: expected.items() <= {t.id: t.status for t in self.emulator.tasks}.items())


@pytest.fixture
def api(emulator):
    for bot in (HUMAN, AGENT_HUMAN):
        emulator.set_workflow(bot.id, pause_limit=None)
    emulator.next_run(PLAIN_TEXT.id, queued=1e9)
    emulator.next_run(PLAIN_TEXT.id, duration=1e9)
    return Documented(emulator)


def test_tasks_in_every_status_are_as_in_the_document_of_v2(api):
    runs = {status: api.run(PLAIN_TEXT) for status in ("created", "running")}
    runs |= {"paused": api.run(HUMAN), "finished": api.run(SEARCH, WITH_PAPER), "failed": api.run(FAILING)}
    others = [api.run(EXPORT, WITH_PAPER, save_browser_data=True), api.run(DOWNLOAD, WITH_PAPER)]
    api.wait_for({task_id: status for status, task_id in runs.items()} | dict.fromkeys(others, "finished"))
    runs["canceled"] = api.run(HUMAN)
    api.call("stop-task", task_id=runs["canceled"], biz_code=7)
    for status, task_id in runs.items():
        assert api.call("get-task-status", task_id=task_id) == {"status": status}
        assert api.call("get-task", task_id=task_id)["status"] == status
        assert api.call("list-tasks", status=status, limit=500)["items"]
    exported, downloaded = (api.call("get-task", task_id=task_id) for task_id in others)
    assert exported["output"]["files"]
    assert downloaded["download_files"]
    api.call("resume-task", task_id=runs["paused"])


def test_runs_in_every_status_are_as_in_the_document_of_v3(api):
    runs = {status: api.run_bot(PLAIN_TEXT) for status in ("created", "running")}
    company = {"company_name": "Example Corp", "max_pages": 2}
    runs |= {"paused": api.run_bot(HUMAN), "finished": api.run_bot(CONTACTS, company), "failed": api.run_bot(FAILING)}
    others = [api.run_bot(workflow, WITH_PAPER) for workflow in (SEARCH, EXPORT, DOWNLOAD)]
    others.append(api.run_bot(PRICES, {"products": ["paper"], "country": "DE", "coupon": None}))
    api.wait_for({task_id: status for status, task_id in runs.items()} | dict.fromkeys(others, "finished"))
    runs["canceled"] = api.run_bot(AGENT_HUMAN)
    assert api.call("cancel-run", task_id=runs["canceled"], biz_code=7)["status"] == "canceled"
    for status, task_id in runs.items():
        assert api.call("query-run-status", task_id=task_id)["status"] == status
        assert api.call("query-run", task_id=task_id)["status"] == status
        assert api.call("page-runs", status=status, limit=100)["items"]
    for task_id in others:
        assert api.call("query-run", task_id=task_id).keys() & {"output", "output_files", "download_files"}
    assert api.call("resume-run", task_id=runs["paused"])["status"] == "paused"


def test_all_other_endpoints_are_as_in_the_documents(api, emulator):
    items = [{"name": "keyword", "value": "paper"}]
    api.call("run-task-by-template", workflow_template_id=TEMPLATE_SEARCH.id, proxyRegion="DE", input_parameters=items)
    start = {"template_id": TEMPLATE_SEARCH.id, "input": WITH_PAPER, "proxy_region": "DE"}
    assert "bot_id" not in api.bot_run(api.call("create-template-run", **start)["task_id"])
    for workflow in emulator.of_kind("workflow"):
        api.call("get-workflow", workflow_id=workflow.id)
    for bot in emulator.of_kind("workflow", "bot"):
        assert api.call("query-bot", bot_id=bot.id)["bot_id"] == bot.id
    for template in emulator.of_kind("template"):
        api.call("get-official-workflow-template", workflow_template_id=template.id)
        api.call("query-template", template_id=template.id)
    for endpoint in ("list-workflows", "list-official-workflow-templates", "page-templates"):
        assert api.call(endpoint, limit=500)["items"]
    assert api.call("page-bots", limit=100, bot_type="agent")["items"]
    assert api.call("get-region-list")
    assert api.call("list-regions")
