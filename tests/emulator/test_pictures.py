import re
from xml.etree import ElementTree

from airflow_provider_browseract.emulator import HUMAN, LOG_IN, SEARCH, EmulatedWorkflow
from airflow_provider_browseract.emulator.catalogue import WORKFLOWS, WRONG_PASSWORD
from airflow_provider_browseract.emulator.pages import draw, render
from tests.helpers.cases import cases

HOSTILE = {
    "tags": "</text></title></svg><script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "\"/><a href='javascript:alert(1)'>&quot;",
    "XML": "<![CDATA[ ]]> <!-- --> <?xml?> <!DOCTYPE x [<!ENTITY y 'z'>]> &y; &#0; {{ 7 * 7 }} {% include 'x' %}",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u202e\ufeff\ufffe\ud800",
    "too long": "x" * 1_000_000,
    "empty": "",
}


def picture(goal, status="succeed", workflow=None, number=1):
    """Return a picture, which has to be well-formed."""
    return ElementTree.fromstring(draw(workflow or EmulatedWorkflow(id="1", name="Any"), number, goal, status))


def page_of(account, link):
    response = account.get(link)
    kind = "image/svg+xml" if link.endswith(".svg") else "text/html; charset=utf-8"
    assert (response.status, response.content_type) == (200, kind)
    return response.body.decode()


def test_each_step_has_a_picture_with_its_number_and_goal():
    for workflow in WORKFLOWS:
        for number, goal in enumerate(workflow.steps, 1):
            assert {str(number), goal} <= set(picture(goal, "running", workflow, number).itertext())


@cases("goal", HOSTILE)
def test_hostile_goal_is_only_text(goal):
    root, harmless = picture(goal), picture("Think")
    for names in (lambda one: one.tag, lambda one: tuple(one.attrib)):
        assert {names(one) for one in root.iter()} == {names(one) for one in harmless.iter()}
    assert all(len(text) < 220 for text in root.itertext())


@cases(("failed", LOG_IN, "username"), ("finished", SEARCH, "keyword"))
def test_pages_and_pictures_show_goals_but_neither_inputs_nor_outputs_nor_failures(account, workflow, name):
    shown, fixed = [], {"password": WRONG_PASSWORD} if workflow is LOG_IN else {}
    for secret in ("ada-1815", "grace-1906"):
        task = account.finished(workflow, {name: secret, **fixed})
        assert secret in str(task.get("task_failure_info", task["output"]))
        pictures = [step["screenshots_url"] for step in task["steps"]]
        log, live = task["log_detail_url"], task["log_detail_url"].replace("/logs/", "/live/")
        assert all(step["step_goal"] in page_of(account, log) for step in task["steps"])
        shown_pictures = re.findall(r'<img src="../(.*?)"', page_of(account, log))
        assert [f"{account.emulator.url}/{each}" for each in shown_pictures] == pictures
        shown.append([page_of(account, link).replace(task["id"], "") for link in (log, live, *pictures)])
        assert secret not in str(shown)
    assert shown[0] == shown[1]


def test_live_view_shows_the_picture_of_the_newest_step_and_reloads_until_the_end(account):
    account.emulator.set_workflow(HUMAN.id, queued=1.0)
    task_id, pages = account.run(HUMAN), []
    for happens in (lambda: None, lambda: account.pass_time(2), lambda: account.call("stop-task", task_id=task_id)):
        happens()
        pages.append(page_of(account, f"/live/{task_id}"))
    assert "The browser is not open yet." in pages[0]
    assert [page.count("<title>Step 2") for page in pages] == [0, 1, 1]
    assert ["http-equiv=refresh" in page for page in pages] == [True, True, False]


def test_step_that_has_not_begun_and_an_unknown_task_have_no_picture(account):
    run = f"/screenshots/{account.run(HUMAN)}"
    assert account.get(f"{run}/1.svg").status == 200
    unknown = [f"{run}/{number}.svg" for number in ("0", "2", "01", "x", "9" * 5000)]
    assert {account.get(path).status for path in (*unknown, "/screenshots/1/1.svg", "/live/1")} == {404}


def test_start_page_lists_the_catalogue_and_every_difference(account):
    page = page_of(account, "/")
    assert all(workflow in page for workflow in account.emulator.workflows)
    differences = [line for line in render("differences.md").splitlines() if line.startswith("- ")]
    assert page.count("<li>") == len(account.emulator.workflows) + len(differences)
