# Every verb here only prepares the environment and calls the `builder` command; see `make help`.
CLUSTER ?= examples/quickstart.yaml
ISO     ?=
NODES   ?=
ARGS    ?=
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
# The machines' tests that run beside the tools' tests, so that both lanes take about as long.
LANE_TOOLS := tests/boot/test_gpu_node.py tests/boot/test_pxe.py
SERVES  := $(VENV)/.serves
TESTS   := $(VENV)/.tests
ROOT    := $(if $(filter-out 0,$(shell id -u)),sudo)

# What an example needs besides what is in the repository.
ifneq ($(filter examples/llamacpp-%,$(CLUSTER)),)
iso pxe plan boot-test: examples/models/tiny.gguf
endif
ifneq ($(filter examples/containers%,$(CLUSTER)),)
iso plan boot-test: examples/images/hello.tar
endif

ifneq ($(filter examples/exo-%,$(CLUSTER)),)
iso plan boot-test: examples/models/builder--tiny exo-secrets
endif

.DEFAULT_GOAL := help
.PHONY: lane-tools lane-machines help setup iso pxe serve plan boot-test check test engines fmt golden bench clean

help: ## Show this list
	@echo "make VERB [CLUSTER=$(CLUSTER)] [ARGS='…options of the builder command…']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Install the system tools and the Python environment (says what and why)

$(READY): pyproject.toml builder/host.py tools/setup
	PYTHON="$(PYTHON)" tools/setup "$(VENV)"
	@touch $@

examples/models/tiny.gguf: tools/make-tiny-model | $(READY)
	$(BIN)/python tools/make-tiny-model $@

examples/models/builder--tiny: tools/make-tiny-model | $(READY)
	$(BIN)/python tools/make-tiny-model $@ --as builder/tiny
	@touch $@

.PHONY: exo-secrets
exo-secrets: $(READY)
	@$(BIN)/builder secrets $(CLUSTER)

examples/images/hello.tar: tools/make-tiny-image | $(READY)
	$(BIN)/python tools/make-tiny-image $@

iso: $(READY) ## Build the install medium of CLUSTER
	@$(BIN)/builder iso $(CLUSTER) $(ARGS)

pxe: $(READY) ## Build what nodes of CLUSTER install from over the network (docs/pxe.md)
	@$(BIN)/builder pxe $(CLUSTER) $(ARGS)

serve: $(SERVES) ## Serve it to the cluster's network until Ctrl-C
	@$(ROOT) $(BIN)/builder serve $(CLUSTER) $(ARGS)

$(TESTS): $(READY)
	$(BIN)/builder doctor --serve --test --install
	@touch $@

$(SERVES): $(READY)
	$(BIN)/builder doctor --serve --install
	@touch $@

plan: $(READY) ## Show what would be built, without building
	@$(BIN)/builder plan $(CLUSTER) $(ARGS)

boot-test: $(READY) ## Install a node of CLUSTER (from ISO, if given) in a virtual machine, boot it, check it
	@$(BIN)/builder boot-test $(CLUSTER) $(if $(ISO),--iso $(ISO)) $(if $(NODES),--nodes $(NODES)) $(ARGS)

check: $(READY) ## Format, lint, types, unit and golden tests: under a minute, no root
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n auto tests/unit

# Two lanes at once: an emulated machine mostly uses one processor, and the other would idle.
test: check $(TESTS) ## Everything: also the real tools and the virtual machines
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=none lane-tools lane-machines

lane-tools: $(READY)
	$(BIN)/pytest -v --durations=15 tests/integration $(LANE_TOOLS)

lane-machines: $(READY)
	$(BIN)/pytest -v --durations=15 -m "not engines" tests/boot $(LANE_TOOLS:%=--ignore=%)

engines: $(READY) ## The virtual machines of Ray, Dask and Docker, which `make test` leaves out
	$(BIN)/pytest -v --durations=15 tests/boot/test_engines.py

fmt: $(READY) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: $(READY) ## Write the golden files and docs/spec.md anew; read the diff before you commit it
	$(BIN)/pytest -q tests/unit --golden

bench: $(READY) ## Measure speed as ratios within one run
	$(BIN)/python -m bench $(ARGS)

clean: $(READY) ## Remove artifacts, reports and the cache
	@$(BIN)/builder clean $(ARGS)
