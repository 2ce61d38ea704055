"""The drawn browsers instead of screenshots, and the pages that show them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from airflow_provider_browseract.emulator import HUMAN, LOG_IN, SEARCH, EmulatedWorkflow
from airflow_provider_browseract.emulator.catalogue import WORKFLOWS, WRONG_PASSWORD
from airflow_provider_browseract.emulator.pages import draw, render
from tests.catalogue import FAILING

STATUSES = ("running", "succeed", "failed")

ADDRESSES = {
    "Open the page": "shop.example/",
    "Open the search page": "shop.example/search",
    "Search for the keyword": "shop.example/search",
    "Open the log-in page": "shop.example/login",
    "Collect the orders": "shop.example/account/orders",
    "Wait for the account page": "shop.example/account",
    "Get past the captcha": "shop.example/check",
    "Press the download button": "shop.example/export",
    "Think": "shop.example/stories",
}
"""The address of the page that is drawn for a goal."""

HOSTILE = [
    "</text><script>alert(1)</script>",
    "</title></svg><img src=x onerror=alert(1)>",
    "\"/><a href='javascript:alert(1)'>&quot;",
    "<![CDATA[ ]]> <!-- --> <?xml?> <!DOCTYPE x [<!ENTITY y 'z'>]> &y; &#0; {{ 7 * 7 }} {% include 'x' %}",
    "".join(map(chr, range(32))) + "\x7f\x85\u2028\u202e\ufeff\ufffe\ud800",
    "x" * 1_000_000,
    "",
]


def texts(picture):
    """Return the texts of a picture, which has to be well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def picture(goal, status="succeed"):
    return str(draw(EmulatedWorkflow(id="1", name="Anything"), 1, goal, status))


def page_of(account, link):
    """Return what a link leads to."""
    response = account.emulator.handle("GET", link.removeprefix(account.emulator.url))
    assert response.status == 200
    return response.body.decode()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_each_step_has_a_picture_with_its_number_and_goal(workflow):
    for number, goal in enumerate(workflow.steps, 1):
        for status in STATUSES:
            assert {str(number), goal} <= set(texts(draw(workflow, number, goal, status)))


@pytest.mark.parametrize("goal", ADDRESSES)
def test_goal_decides_the_page_and_a_failed_step_is_red(goal):
    drawn = [picture(goal, status) for status in STATUSES]
    assert ADDRESSES[goal] in texts(drawn[1])
    assert ['stroke="#c81e1e" stroke-width="12"' in each for each in drawn] == [False, False, True]


@pytest.mark.parametrize("goal", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_goal_is_only_text(goal):
    root, harmless = (ElementTree.fromstring(picture(each)) for each in (goal, "Think"))
    assert {element.tag for element in root.iter()} == {element.tag for element in harmless.iter()}
    names = {name for element in root.iter() for name in element.attrib}
    assert names == {name for element in harmless.iter() for name in element.attrib}
    assert all(len(text) < 220 for text in root.itertext())


@pytest.mark.parametrize(
    ("workflow", "name", "fixed"),
    [(LOG_IN, "username", {"password": WRONG_PASSWORD}), (SEARCH, "keyword", {})],
    ids=["failed", "finished"],
)
def test_pages_and_pictures_show_neither_inputs_nor_outputs_nor_failures(account, workflow, name, fixed):
    shown = []
    for secret in ("ada-1815", "grace-1906"):
        task = account.finished(workflow, {name: secret, **fixed})
        assert secret in str(task.get("task_failure_info", task["output"]))
        links = [step["screenshots_url"] for step in task["steps"]]
        links += [task["log_detail_url"], task["log_detail_url"].replace("/logs/", "/live/")]
        shown.append([page_of(account, link).replace(task["id"], "") for link in links])
        assert secret not in str(shown)
    assert shown[0] == shown[1]


def test_live_view_shows_the_picture_of_the_newest_step_and_reloads_until_the_end(account):
    account.emulator.set_workflow(HUMAN.id, queued=1.0)
    task_id, pages = account.run(HUMAN), []
    link = f"/live/{task_id}"
    pages.append(page_of(account, link))
    account.pass_time(2)
    pages.append(page_of(account, link))
    account.call("stop-task", task_id=task_id)
    pages.append(page_of(account, link))
    assert "The browser is not open yet." in pages[0]
    assert [page.count("<title>Step 2") for page in pages] == [0, 1, 1]
    assert ["http-equiv=refresh" in page for page in pages] == [True, True, False]


def test_log_shows_the_goal_and_the_picture_of_each_step(account):
    task = account.finished(FAILING)
    page = page_of(account, task["log_detail_url"])
    pictures = [f"{account.emulator.url}/{each}" for each in re.findall(r'<img src="../(.*?)"', page)]
    assert pictures == [step["screenshots_url"] for step in task["steps"]]
    assert all(step["step_goal"] in page for step in task["steps"])


@pytest.mark.parametrize("number", ["0", "2", "01", "-1", "x", "9" * 5000])
def test_step_that_has_not_begun_and_an_unknown_task_have_no_picture(account, number):
    run = f"/screenshots/{account.run(HUMAN)}"
    paths = (f"{run}/1.svg", f"{run}/{number}.svg", "/screenshots/1/1.svg", "/live/1")
    assert [account.emulator.handle("GET", path).status for path in paths] == [200, 404, 404, 404]


def test_start_page_lists_the_catalogue_and_every_difference(account):
    page = page_of(account, "/")
    assert all(workflow in page for workflow in account.emulator.workflows)
    differences = [line for line in render("differences.md").splitlines() if line.startswith("- ")]
    assert page.count("<li>") == len(account.emulator.workflows) + len(differences)
    assert "<h2>More lenient than BrowserAct</h2>" in page
