"""An executor that runs each try as the Kubernetes executor does, without Kubernetes.

Each try gets a "pod": a process group with the command of Airflow's containers, in its own folder, with a clean
environment. It knows the Execution API and the DAG files, and has no access to Airflow's database or configuration.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor

FOLDER = "BROWSERACT_PODS"
"""Environment variable with the folder for the pods."""

PASSED_ON = ("PATH", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL")
"""The only variables that a pod gets from the scheduler."""


class PodExecutor(BaseExecutor):
    """Run each try in a pod, and report how its first process has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pods: dict[Any, subprocess.Popen[bytes]] = {}
        self._number = 0

    def _process_workloads(self, workloads: Sequence[Any]) -> None:
        for workload in workloads:
            key = workload.ti.key
            del self.queued_tasks[key]
            self._pods[key] = self._start(workload)
            self.running.add(key)

    def _start(self, workload: Any) -> subprocess.Popen[bytes]:
        # A try that defers gets another pod when it is resumed.
        self._number += 1
        folder = Path(os.environ[FOLDER], f"{workload.ti.task_id}-{workload.ti.try_number}-{self._number}")
        folder.mkdir(parents=True)
        environment = {name: os.environ[name] for name in PASSED_ON}
        environment |= {"HOME": str(folder), "AIRFLOW_HOME": str(folder)}
        command = ["airflow.sdk.execution_time.execute_workload", "--json-string", workload.model_dump_json()]
        with (folder / "out").open("wb") as out:
            pod = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (folder / "pid").write_text(str(pod.pid))
        return pod

    def sync(self) -> None:
        for key, pod in list(self._pods.items()):
            if (code := pod.poll()) is not None:
                del self._pods[key]
                (self.fail if code else self.success)(key)

    def end(self) -> None:
        """Leave the pods to themselves, as Kubernetes does when the scheduler ends."""

    def terminate(self) -> None:
        """Leave the pods to themselves."""
