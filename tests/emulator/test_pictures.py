"""The drawn browsers in place of screenshots, and the pages that show them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from airflow_provider_browseract.emulator import ENDLESS, FAILING, HUMAN, LOG_IN, ORDERS, SEARCH, EmulatedWorkflow
from airflow_provider_browseract.emulator.catalogue import BOTS, TEMPLATES, WORKFLOWS, WRONG_PASSWORD
from airflow_provider_browseract.emulator.pictures import draw

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
    "<![CDATA[ ]]> <!-- --> <?xml?> <!DOCTYPE x [<!ENTITY y 'z'>]> &y; &#0;",
    "".join(map(chr, range(32))) + "\x7f\x85\u2028\u202e\ufeff\ufffe\ud800",
    "x" * 1_000_000,
    " ",
    "",
]


def texts(picture: str | bytes) -> list[str]:
    """Return the texts of a picture, which has to be well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def picture(goal: str, status: str = "succeed", number: int = 1) -> str:
    return draw(EmulatedWorkflow(id="1", name="Prices"), number, goal, status)


def pictures(client: Any, task_id: str) -> list[httpx.Response]:
    return [httpx.get(step["screenshots_url"]) for step in client.task(task_id)["steps"]]


class TestDrawing:
    @pytest.mark.parametrize("workflow", WORKFLOWS + TEMPLATES + BOTS, ids=lambda workflow: workflow.name)
    @pytest.mark.parametrize("status", STATUSES)
    def test_each_step_of_each_workflow_has_a_picture_with_its_number_and_goal(
        self, workflow: EmulatedWorkflow, status: str
    ) -> None:
        for number, goal in enumerate(workflow.steps, 1):
            assert {str(number), goal} <= set(texts(draw(workflow, number, goal, status)))

    @pytest.mark.parametrize("goal", ADDRESSES)
    def test_failed_step_has_a_red_caption_and_frame(self, goal: str) -> None:
        drawn = {status: picture(goal, status) for status in STATUSES}
        assert len(set(drawn.values())) == 3
        caption, frame = 'height="110" rx="0" fill="#c81e1e"', 'fill="none" stroke="#c81e1e" stroke-width="12"'
        assert [(caption in each, frame in each) for each in drawn.values()] == [(False, False)] * 2 + [(True, True)]

    @pytest.mark.parametrize("goal", HOSTILE, ids=range(len(HOSTILE)))
    @pytest.mark.parametrize("status", STATUSES)
    def test_hostile_goal_is_only_text(self, goal: str, status: str) -> None:
        root = ElementTree.fromstring(picture(goal, status))
        harmless = ElementTree.fromstring(picture("Think", status))
        assert {element.tag for element in root.iter()} == {element.tag for element in harmless.iter()}
        names = {name for element in root.iter() for name in element.attrib}
        assert names == {name for element in harmless.iter() for name in element.attrib}
        assert all(len(text) < 220 for text in root.itertext())

    def test_long_goal_is_cut_after_two_lines(self) -> None:
        assert texts(picture("Read the name and the price of each product, " * 9))[-2:] == [
            "Read the name and the price of each product, Read",
            "the name and the price of each product, Read the …",
        ]

    def test_workflow_decides_about_a_goal_that_fits_no_page(self) -> None:
        assert "shop.example/account/orders" in texts(draw(ORDERS, 4, "Return the output", "succeed"))
        assert "shop.example/search" in texts(draw(SEARCH, 4, "Return the output", "succeed"))

    def test_account_that_could_not_be_opened_is_the_log_in_form(self) -> None:
        assert "shop.example/login" in texts(picture("Wait for the account page", "failed"))

    def test_endless_run_turns_the_pages_of_the_results(self) -> None:
        found = [texts(draw(ENDLESS, number, ENDLESS.steps[(number - 1) % 2], "succeed")) for number in range(1, 5)]
        assert [f"Page {page}" in each for page, each in zip((1, 2, 2, 3), found, strict=True)] == [True] * 4
        assert "shop.example/search?page=3" in found[3]
        # Other prices on each page.
        assert found[1][1:-2] == found[2][1:-2] != found[3][1:-2]


class TestServing:
    def test_picture_of_each_kind_is_served_as_svg(self, client: Any) -> None:
        workflow = EmulatedWorkflow(id="1", name="All pages", steps=tuple(ADDRESSES), duration=0.0)
        client.emulator.add_workflow(workflow)
        served = pictures(client, client.start(workflow).json()["id"])
        assert {each.headers["Content-Type"] for each in served} == {"image/svg+xml"}
        for address, each in zip(ADDRESSES.values(), served, strict=True):
            assert address in texts(each.content)

    def test_pictures_and_pages_of_a_failed_run_show_neither_inputs_nor_the_failure(self, client: Any) -> None:
        client.emulator.set_workflow(LOG_IN.id, duration=0.0)
        drawn = []
        for username in ("ada-1815", "grace-1906"):
            task_id = client.start(LOG_IN, {"username": username, "password": WRONG_PASSWORD}).json()["id"]
            assert username in client.task(task_id)["task_failure_info"]["message"]
            drawn.append([each.text for each in pictures(client, task_id)])
            for page in ("live", "logs"):
                assert username not in httpx.get(f"{client.running.url}/{page}/{task_id}").text
        assert len(drawn[0]) == 3
        assert drawn[0] == drawn[1]

    def test_pictures_and_pages_of_a_finished_run_show_neither_inputs_nor_outputs(self, client: Any) -> None:
        client.emulator.set_workflow(SEARCH.id, duration=0.0)
        drawn = []
        for keyword in ("paper-1815", "paper-1906"):
            task_id = client.start(SEARCH, {"keyword": keyword}).json()["id"]
            assert keyword in client.task(task_id)["output"]["string"]
            drawn.append([each.text for each in pictures(client, task_id)])
            for page in ("live", "logs"):
                assert keyword not in httpx.get(f"{client.running.url}/{page}/{task_id}").text
        assert drawn[0] == drawn[1]

    def test_live_view_shows_the_picture_of_the_step_that_is_running(self, client: Any) -> None:
        client.emulator.set_workflow(HUMAN.id, duration=0.0)
        task_id = client.start(HUMAN).json()["id"]
        client.emulator.wait_until(lambda: client.emulator.tasks[-1].status == "paused")
        [*_, newest] = pictures(client, task_id)
        page = httpx.get(client.task(task_id)["live_url"]).text
        assert newest.text in page
        assert page.count("<title>Step") == 1

    def test_live_view_of_a_queued_run_shows_no_picture(self, client: Any) -> None:
        client.emulator.set_workflow(HUMAN.id, queued=600.0)
        task_id = client.start(HUMAN).json()["id"]
        page = httpx.get(f"{client.running.url}/live/{task_id}").text
        assert "The browser is not open yet." in page
        assert "<svg" not in page

    def test_log_shows_the_picture_of_each_step(self, client: Any) -> None:
        client.emulator.set_workflow(FAILING.id, duration=0.0)
        task_id = client.start(FAILING).json()["id"]
        page = httpx.URL(client.task(task_id)["log_detail_url"])
        sources = [part.partition('"')[0] for part in httpx.get(page).text.split('<img src="')[1:]]
        assert [str(page.join(source)) for source in sources] == [
            step["screenshots_url"] for step in client.task(task_id)["steps"]
        ]

    @pytest.mark.parametrize("number", ["0", "2", "01", "-1", "x", "9" * 5000])
    def test_picture_of_a_step_that_has_not_begun_gets_404(self, client: Any, number: str) -> None:
        client.emulator.set_workflow(HUMAN.id, duration=600.0)
        task_id = client.start(HUMAN).json()["id"]
        assert httpx.get(f"{client.running.url}/screenshots/{task_id}/1.svg").status_code == 200
        assert httpx.get(f"{client.running.url}/screenshots/{task_id}/{number}.svg").status_code == 404
        assert httpx.get(f"{client.running.url}/screenshots/1/1.svg").status_code == 404
