"""The parts of the documentation that are made of docstrings and of declared settings."""

import dataclasses
import re

import pytest

from airflow_provider_browseract.emulator import EmulatedWorkflow, Emulator
from dev import tables
from tests.helpers.pages import PAGES


@pytest.mark.parametrize("page", tables.PARTS)
def test_each_part_is_up_to_date(page):
    text = PAGES[f"docs/{page}"]
    assert tables.written(page, text) == text, "run make tables"


def test_each_part_of_a_page_is_made():
    marked = {page: re.findall(r"^<!-- ([\w-]+) -->$", text, re.MULTILINE) for page, text in PAGES.items()}
    parts = {page: sorted(set(names) - {"end"}) for page, names in marked.items() if names}
    assert parts == {f"docs/{page}": sorted(made) for page, made in tables.PARTS.items()}


@pytest.mark.parametrize("cls", [Emulator, EmulatedWorkflow])
def test_every_setting_of_the_emulator_has_a_docstring(cls):
    described = {name for base in cls.__mro__[:-1] for name in tables.attribute_docstrings(base)}
    assert {each.name for each in dataclasses.fields(cls)} <= described
