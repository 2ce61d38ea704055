"""Time to fetch files to object storage, compared with curl."""

from __future__ import annotations

import gzip
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

FILES = 10
SIZE = 50 * 1024 * 1024
ROUNDS = 5


def files() -> None:
    """Ten files of 50 MiB from the emulator to a local folder, by the provider and by curl, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dev.benchmarks.files"]
        with subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                task = json.loads(server.stdout.readline())
                ours, curls, peaks = [], [], []
                for _ in range(ROUNDS):
                    curls.append(_curl(task["urls"], Path(folder) / "curl"))
                    done = subprocess.run(
                        [*command, "fetch", json.dumps(task), folder], stdout=subprocess.PIPE, check=True, text=True
                    )
                    seconds, peak = json.loads(done.stdout.splitlines()[-1])
                    ours.append(seconds)
                    peaks.append(peak)
            finally:
                server.terminate()
    ratio = statistics.median(curls) / statistics.median(ours)
    rate = FILES * SIZE / 2**20 / statistics.median(ours)
    print(
        f"{FILES} files of {SIZE >> 20} MiB, medians of {ROUNDS}: {statistics.median(ours):.2f} s ({rate:.0f} MiB/s), "
        f"curl {statistics.median(curls):.2f} s; {ratio:.2f} of curl's rate (limit 0.8); "
        f"peak memory {max(peaks) >> 20} MiB (limit 300 MiB)"
    )


def inflated() -> None:
    """Memory of a process that stores a file of 50 MiB whose host sends it with gzip and without its size."""
    command = [sys.executable, "-m", "dev.benchmarks.files"]
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen([*command, "serve_gzip"], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                url = server.stdout.readline().strip()
                done = subprocess.run(
                    [*command, "fetch_gzip", url, folder], stdout=subprocess.PIPE, check=True, text=True
                )
            finally:
                server.terminate()
        sent, more = json.loads(done.stdout.splitlines()[-1])
    print(
        f"a file of {SIZE >> 20} MiB, sent with gzip as {sent >> 10} KiB and without a length: {more / 2**20:.1f} MiB "
        f"more memory (limit 64 MiB), urllib3 {version('urllib3')}"
    )


def _curl(urls: list[str], folder: Path) -> float:
    from airflow_provider_browseract.results.download import PARALLEL_DOWNLOADS

    folder.mkdir()
    outputs = [part for number, url in enumerate(urls) for part in ("-o", str(folder / str(number)), url)]
    began = time.perf_counter()
    subprocess.run(
        ["curl", "-sS", "--fail", "--parallel", "--parallel-max", str(PARALLEL_DOWNLOADS), *outputs], check=True
    )
    took = time.perf_counter() - began
    assert {path.stat().st_size for path in folder.iterdir()} == {SIZE}
    shutil.rmtree(folder)
    return took


def _fetch(task: dict[str, str], folder: str) -> None:
    from airflow_provider_browseract.api import v2
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.results.store import ResultStore
    from airflow_provider_browseract.runs.options import OutputFormat

    settings = Settings(api_key="app-emulator", base_url=task["base_url"])
    with BrowserActClient(settings) as client:
        run = client.send(v2.get_task(task["id"]))
    store = ResultStore(f"file://{folder}/ours", settings, logging.getLogger())
    store.folder.check()
    began = time.perf_counter()
    results = store.save(run, OutputFormat.AUTO, lambda: run)
    took = time.perf_counter() - began
    assert [kept.size for kept in results.files] == [SIZE] * FILES
    shutil.rmtree(f"{folder}/ours")
    print(json.dumps([took, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))


def _fetch_gzip(url: str, folder: str) -> None:
    from airflow_provider_browseract.api.models import Output, Task, TaskStatus
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.results.store import ResultStore
    from airflow_provider_browseract.runs.options import OutputFormat

    # The file is on the host of the API, which alone may be a private one.
    store = ResultStore(f"file://{folder}", Settings(api_key="app-emulator", base_url=url), logging.getLogger())
    store.folder.check()
    run = Task(id="7", status=TaskStatus.FINISHED, output=Output(string=None, files=(url,)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = store.save(run, OutputFormat.AUTO, lambda: run)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [kept.size for kept in results.files] == [SIZE], results.missing
    print(json.dumps([len(_zeros()), 1024 * (after - before)]))


def _zeros() -> bytes:
    return gzip.compress(bytes(SIZE))


def _serve_gzip() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    content = _zeros()

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            # The end of the connection is the end of the file.
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Host) as server:
        print(f"http://127.0.0.1:{server.server_port}/export.csv", flush=True)
        server.serve_forever()


def _serve() -> None:
    import signal

    from airflow_provider_browseract.api import v2
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.emulator import EXPORT, EmulatedFile, Emulator

    emulator = Emulator()
    content = os.urandom(SIZE)
    exported = tuple(EmulatedFile(f"{number}.bin", content) for number in range(FILES))
    emulator.set_workflow(EXPORT.id, files=exported, duration=0.1)
    with (
        emulator.serve() as running,
        BrowserActClient(Settings(api_key="app-emulator", base_url=running.url)) as client,
    ):
        created = client.send(v2.run(EXPORT.id, {"keyword": "pens"}))
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        output = client.send(v2.get_task(created.id)).output
        assert output
        print(json.dumps({"id": created.id, "base_url": running.url, "urls": output.files}), flush=True)
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    elif sys.argv[1] == "fetch":
        _fetch(json.loads(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "serve_gzip":
        _serve_gzip()
    else:
        _fetch_gzip(*sys.argv[2:])
