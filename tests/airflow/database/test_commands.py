"""What the command ``check`` reads in Airflow's database."""

from airflow_provider_browseract.commands.check import alive


def test_only_running_components_with_a_new_heartbeat_are_alive(components):
    assert alive() == {"TriggererJob", "SchedulerJob", "DagProcessorJob"}
    components.clear()
    components.add("TriggererJob", ago=90.0)
    components.add("SchedulerJob", ago=1.0, state="failed")
    components.add("DagProcessorJob", ago=1.0)
    components.add("LocalTaskJob", ago=1.0)
    assert alive() == {"DagProcessorJob"}
