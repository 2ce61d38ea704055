"""The figures of ``make bench``, each with its limit: ``python -m dev.benchmarks.run [NAME ...]``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from types import ModuleType

from dev.benchmarks import callbacks, panel, responses, waits
from dev.benchmarks.figures import Figure

IMPORT = """
import time
began = time.perf_counter()
{base}
base = time.perf_counter()
{addition}
print(base - began, time.perf_counter() - base)
"""
IMPORTS = 10

OPERATORS = Figure("import of the operators without jsonschema, to that of DAG and BaseOperator", 3, "%")
PLUGIN = Figure("import of the plugin, to a task process's own imports", 1, "%")


def imports() -> None:
    """What importing operators and plugin adds to what is imported anyway."""
    _import(
        OPERATORS,
        # Airflow has loaded jsonschema by then. Another import of it fails.
        "from airflow.sdk import DAG, BaseOperator\nimport sys\nsys.modules['jsonschema'] = None",
        "import airflow_provider_browseract.operators.browseract",
    )
    _import(
        PLUGIN,
        "import airflow.sdk.execution_time.task_runner, airflow.plugins_manager",
        "import airflow_provider_browseract.plugin",
    )


def _import(figure: Figure, base: str, addition: str) -> None:
    shares, additions = [], []
    for _ in range(IMPORTS):
        source = IMPORT.format(base=base, addition=addition)
        out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
        took, added = map(float, out.split()[-2:])
        additions.append(added)
        shares.append(100 * added / took)
    figure.report(statistics.median(shares), f"{1000 * statistics.median(additions):.1f} ms, median of {IMPORTS}")


BENCHMARKS = {
    each.__name__: each
    for each in (imports, callbacks.route, waits.waits, responses.responses, panel.panel, panel.links)
}


def description() -> str:
    """Return what the benchmarks measure, with their limits."""
    lines = [f"  {name:10} {(each.__doc__ or '').partition(chr(10))[0]}" for name, each in BENCHMARKS.items()]
    modules: list[ModuleType] = [sys.modules[__name__], callbacks, waits, responses, panel]
    figures = [each for module in modules for each in vars(module).values() if isinstance(each, Figure)]
    return "\n".join([*lines, "", "Figures with limits:", *(f"  {each}" for each in figures)])


def main() -> None:
    """Measure the named figures, all of them by default."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=description(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help="all without a name")
    for name in parser.parse_args().names or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
