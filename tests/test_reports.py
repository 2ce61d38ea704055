"""What pytest reports if an Airflow that many tests share does not start."""

import pytest

from tests.helpers.local_airflow import LocalAirflow
from tests.helpers.pages import ROOT
from tests.helpers.separate_pytest import run_pytest

TESTS = """
import pytest

@pytest.fixture(scope="session")
def airflow():
    raise TimeoutError("A healthy Airflow did not come.\\nthe log")

@pytest.fixture
def other():
    raise TimeoutError("Another error.")

def test_first(airflow): ...
def test_second(airflow): ...
def test_third(airflow): ...
def test_fourth(other): ...
"""


def test_error_of_a_shared_fixture_is_reported_in_full_only_once(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    options = "-rN -p no:browseract -p tests.helpers.reports"
    printed = run_pytest(tmp_path, tmp_path, {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": options})
    assert printed.count("E       the log\n") == 1
    assert printed.count("E       TimeoutError: Another error.") == 1
    again = "The fixture has failed before, see the error of test_it.py::test_first: TimeoutError: A healthy Airflow"
    assert printed.count(again) == 2
    assert "4 errors in " in printed


def test_airflow_that_does_not_become_healthy_is_reported_with_what_its_components_have_printed(tmp_path):
    airflow = LocalAirflow(tmp_path, tmp_path)
    for name in airflow.names:
        (tmp_path / f"{name}.out").write_text(f"output of {name}\n")
    with pytest.raises(TimeoutError, match="A healthy Airflow did not come within 0 s") as raised:
        airflow.wait_until_healthy(timeout=0)
    for name in airflow.names:
        assert f"\nairflow {name}\noutput of {name}" in str(raised.value)
