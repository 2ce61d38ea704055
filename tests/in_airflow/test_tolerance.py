import pytest

from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors


def test_exceptions_that_end_a_process_are_not_tolerated():
    with pytest.raises(KeyboardInterrupt), tolerate_errors():
        raise KeyboardInterrupt
