import importlib
import json
import re
from importlib.metadata import distribution, metadata
from importlib.resources import files
from pathlib import Path

import jsonschema
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.providers_manager import ProvidersManager

import airflow_provider_browseract
from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.settings import EXTRA_FIELDS
from airflow_provider_browseract.get_provider_info import get_provider_info
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.links import PushedLink
from tests.helpers.pages import PAGES

NAME = "airflow-provider-browseract"


def test_provider_info_is_valid_for_airflow_schema_and_leaves_the_plugin_to_its_entry_point():
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    # Airflow loads what the info names only with lazy_discover_providers=False, and then calls the second one an error.
    assert "plugins" not in get_provider_info()


def test_provider_info_name_and_version_match_the_distribution():
    info = get_provider_info()
    assert (info["package-name"], info["versions"]) == (NAME, [distribution(NAME).version]) == (NAME, [__version__])


def test_provider_info_names_only_existing_modules_and_classes():
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for module in info[kind][0]["python-modules"]:
            importlib.import_module(module)
    decorators = [decorator["class-name"] for decorator in info["task-decorators"]]
    for path in [*info["extra-links"], *decorators, *(kind["hook-class-name"] for kind in info["connection-types"])]:
        module, name = path.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name)


def test_provider_info_names_every_part_of_the_package():
    info = get_provider_info()
    package = Path(airflow_provider_browseract.__file__).parent
    kinds = {path.parent.name for path in package.glob("*s/browseract.py")} - {"decorators"}
    assert kinds == {kind for kind in info if info[kind] and kind in ("hooks", "operators", "sensors", "triggers")}
    assert [decorator["name"] for decorator in info["task-decorators"]] == ["browseract"]
    shown = {path.rpartition(".")[2] for path in info["extra-links"]}
    assert shown == {link.__name__ for link in PushedLink.__subclasses__()}


def test_readme_in_the_metadata_has_all_its_text_and_only_whole_addresses():
    readme = metadata(NAME)["Description"]
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "<picture>" not in readme
    written = re.sub(r"(?s)<picture>.*?</picture>\n\n", "", PAGES["README.md"])
    words = [re.sub(r"\]\([^)]+\)|\[", "", text).split() for text in (readme, written)]
    assert words[0] == words[1]


def test_airflow_discovers_provider_hook_and_link():
    manager = ProvidersManager()
    assert NAME in manager.providers
    hook = manager.hooks["browseract"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_testable) == ("BrowserAct", True)
    assert hook.hook_class_name.endswith(BrowserActHook.__name__)
    assert any(link.endswith("BrowserActTaskLink") for link in manager.extra_links_class_names)


def test_class_of_the_hook_itself_has_the_methods_that_airflow_3_1_looks_for():
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= vars(BrowserActHook).keys()


def test_airflow_connection_form_shows_every_field(monkeypatch):
    singletons = type(ProvidersManager)
    if hasattr(singletons, "_instances"):
        # Airflow 3.1 finds the fields only when a process reads the providers for the first time.
        monkeypatch.setattr(singletons, "_instances", {})
    form = next(meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "browseract")
    assert form.standard_fields is not None
    standard = form.standard_fields.model_dump()
    assert standard["password"]["title"] == "API key"
    assert standard["host"]["placeholder"] == "https://api.browseract.com"
    # Without a port in the connection, the response to the Test button of Airflow 3.3 is 400.
    port = {name: standard["port"][name] for name in ("hidden", "title", "placeholder")}
    assert port == {"hidden": False, "title": "API port", "placeholder": "443"}
    assert standard["login"]["hidden"]
    assert standard["url_schema"]["hidden"]
    assert form.extra_fields is not None
    assert set(form.extra_fields) == set(EXTRA_FIELDS)
    for name, field in EXTRA_FIELDS.items():
        shown = form.extra_fields[name]
        assert shown["description"] == (field.description or "")
        assert shown["schema"]["title"] == field.title
        assert set(shown["schema"]["type"]) == {"string" if name == "webhook_base_url" else "integer", "null"}
