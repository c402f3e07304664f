# Every target does its own set-up: the only things needed beforehand are Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

DOCKER   ?= docker
IMAGE    ?= artwork-backfill
VERSION   = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION  = $(shell git rev-parse HEAD)

# The suite and the demo start processes by the hundred, which must not compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo dashboard test screenshots faults lint docs image bench requirements clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## create .venv with the pinned requirements and the project

$(VENV)/.installed: pyproject.toml requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: install  ## run the main jobs against an embedded PostgreSQL and local stand-ins
	$(BIN)/python -m sandbox demo

dashboard: install  ## serve the dashboard on the demo's world
	$(BIN)/python -m sandbox dashboard

test: install  ## run the test suite
	$(BIN)/python -m pytest -n 3 --dist worksteal

screenshots: install  ## take the pictures of the dashboard again (needs Chromium)
	DASHBOARD_SCREENSHOTS=docs $(BIN)/python -m pytest -q tests/dashboard/test_browser.py -k picture

faults: install  ## break things in earnest: kills, outages, millions of rows (an hour)
	$(BIN)/python -m pytest tests/faults --long --timeout 14400

lint: install  ## check the code, the workflows, the manifests and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types/artwork_backfill
	for folder in dashboard jobs shared sql; do ln -sfn "$(CURDIR)/$$folder" build/types/artwork_backfill/$$folder; done
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/kubernetes-validate --quiet --strict deploy/kubernetes/*.yaml

docs: install  ## rewrite the parts of the documentation that are generated
	$(BIN)/python docs/generate.py

image:  ## build the container image (needs docker, or DOCKER=podman)
	$(DOCKER) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--tag $(IMAGE):$(VERSION) --tag $(IMAGE):$(REVISION) --tag $(IMAGE):latest .

bench: install  ## measure speed and memory
	$(BIN)/python -m bench

requirements:  ## pin the requirements anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --extra dashboard pyproject.toml -o requirements-dashboard.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --extra dev --extra dashboard pyproject.toml -o requirements-dev.txt
	echo 'setuptools>=77' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade - -o requirements-build.txt

clean:  ## remove everything that the other targets made
	rm -rf $(VENV) .sandbox reports build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
