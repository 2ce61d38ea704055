"""How long the emulator takes to start and stop, which each test with the fixture pays for."""

from __future__ import annotations

import statistics
import time

import httpx

from airflow_provider_browseract.emulator import Emulator

TIMES = 50


def emulator() -> None:
    """Seconds to start and stop an emulator, compared with a request to it."""
    whole, requests = [], []
    for _ in range(TIMES):
        began = time.perf_counter()
        with Emulator().serve() as running:
            asked = time.perf_counter()
            httpx.get(running.url, trust_env=False)
            requests.append(time.perf_counter() - asked)
        whole.append(time.perf_counter() - began)
    took, request = statistics.median(whole), statistics.median(requests)
    print(f"start, stop and one request: {took:.3f} s, {took / request:.1f} times the request alone")
