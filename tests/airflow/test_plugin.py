"""The plugin: which application serves which path, how it is loaded, and where Airflow's UI shows the pages."""

import logging
import sys
from importlib import import_module
from types import ModuleType

import httpx
import pytest
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse
from fastapi import FastAPI

from airflow_provider_browseract import plugin
from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS
from airflow_provider_browseract.decorators.browseract import BrowserActDecoratedOperator
from airflow_provider_browseract.in_airflow.links import PanelLink
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.plugin import BrowserActPlugin, LazyApp
from airflow_provider_browseract.runs.routes import PANEL
from airflow_provider_browseract.sensors.browseract import TaskSensor

PANEL_MODULE = "airflow_provider_browseract.panel.app"


@pytest.fixture
def panel(monkeypatch) -> None:
    """A panel that responds with the path of a request."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: f"page {path}")
    module = ModuleType(PANEL_MODULE)
    module.create_app = lambda: app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PANEL_MODULE, module)


@pytest.fixture
def airflow() -> httpx.AsyncClient:
    """A client of an Airflow with new applications of the plugin, mounted in the order in which Airflow mounts them."""
    app = FastAPI()
    for given in BrowserActPlugin.fastapi_apps:
        loaded: LazyApp = given["app"]
        app.mount(given["url_prefix"], LazyApp(loaded._load, loaded._name, loaded._consequence))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://airflow.test")


async def test_panel_and_callback_route_are_served_at_their_paths(airflow, panel):
    assert (await airflow.get("/browseract/panel/runs/7")).json() == "page runs/7"
    assert (await airflow.get("/browseract/panel/")).json() == "page "
    without_slash = await airflow.get("/browseract/panel")
    assert (without_slash.status_code, without_slash.headers["location"]) == (307, "/browseract/panel/")


async def test_icon_of_the_menu_entry_is_served_without_login_and_the_overview_is_not(airflow):
    icon = await airflow.get(f"/{plugin.MENU_ENTRY['icon']}")
    assert (icon.status_code, icon.headers["content-type"].partition(";")[0]) == (200, "image/svg+xml")
    assert (await airflow.get(f"/{plugin.MENU_ENTRY['href']}")).status_code == 401


async def test_panel_that_cannot_be_loaded_responds_with_503_and_leaves_callbacks_alone(airflow, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, PANEL_MODULE, None)
    response = await airflow.get("/browseract/panel/")
    assert (response.status_code, response.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert response.text.startswith("The panel cannot be loaded. The log of the API server states the reason.")
    assert "Runs and callbacks are not affected." in caplog.text
    assert (await airflow.get("/browseract/panel")).status_code == 307


async def test_panel_works_while_the_callback_route_cannot_be_loaded(airflow, panel, monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow_provider_browseract.webhook.receiver", None)
    response = await airflow.get("/browseract/callback/7/token")
    assert (response.status_code, response.text.partition(".")[0]) == (503, "The callback route cannot be loaded")
    assert (await airflow.get("/browseract/panel/")).status_code == 200


def test_plugin_has_a_menu_entry_and_tabs_only_where_they_can_be_limited_all_below_the_panel():
    # As Airflow's API describes them to its UI.
    views = [ExternalViewResponse.model_validate(view).model_dump() for view in BrowserActPlugin.external_views]
    places = [view["destination"] for view in views]
    assert places == ["nav", *(["task_instance", "dag_run", "dag"] if AIRFLOW_V_3_4_PLUS else [])]
    assert views[0]["category"] == "browse"
    assert len({view["url_route"] for view in views}) == len(places)
    # Relative to the base URL.
    addresses = [view[key] for view in views for key in ("href", "icon") if view[key]]
    assert len(addresses) == len(places) + 1
    assert all(address.startswith(f"{PANEL}/"[1:]) for address in addresses)


def test_tab_of_a_task_instance_is_limited_to_the_operators_with_a_button_to_the_panel():
    [names] = [tab["applies_to"]["operator_name"] for tab in plugin.TABS if tab["destination"] == "task_instance"]
    of_version_2 = (operators.RunWorkflowOperator, operators.RunTemplateOperator)
    of_version_3 = (operators.RunBotOperator, operators.RunBotTemplateOperator)
    faces = (*of_version_2, *of_version_3, BrowserActDecoratedOperator, TaskSensor)
    assert sorted(names) == sorted(getattr(face, "custom_operator_name", face.__name__) for face in faces)
    assert all(PanelLink() in face.operator_extra_links for face in faces)


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="before Airflow 3.4 there are no limits")
def test_airflow_reports_no_mistake_in_the_limits_of_tabs(caplog):
    is_valid = import_module("airflow.plugins_manager")._validate_applies_to
    with caplog.at_level(logging.WARNING):
        assert all(is_valid("browseract", dict(view), "an external view") for view in BrowserActPlugin.external_views)
    assert caplog.records == []
