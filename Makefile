# Every target does its own set-up; it only needs Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

DOCKER   ?= docker
IMAGE    ?= artwork-backfill
VERSION   = $(shell .ci/version)
REVISION  = $(shell git rev-parse HEAD 2>/dev/null)
CREATED   = $(shell date -u +%Y-%m-%dT%H:%M:%SZ)
# As a URL, without a password or token in it.
SOURCE    = $(shell git remote get-url origin 2>/dev/null | sed -E 's,^git@([^:]+):,https://\1/,; s,//[^/@]*@,//,; s,\.git$$,,')
# The name of an image cannot contain a plus sign, as in the version of an untagged commit.
TAG       = $(subst +,-,$(VERSION))

# Compiling every module again would slow down the hundreds of processes of the tests and the demo.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install dev demo dashboard test screenshots faults lint docs image base-digest bench requirements clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.demo  ## create .venv with what the jobs, the demo and the sandbox need

dev: $(VENV)/.installed  ## add the dashboard and the tools for testing and linting

# The build tools are pinned as well, so pip need not fetch others to build the project.
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
INSTALL     = $(PIP_INSTALL) --require-hashes -r requirements-build.txt
INSTALL_ALL = $(PIP_INSTALL) --no-build-isolation --no-deps -e .

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements-build.txt requirements-demo.txt | $(VENV)/bin/pip
	$(INSTALL) -r requirements-demo.txt
	$(INSTALL_ALL)
	@touch $@

$(VENV)/.dashboard: pyproject.toml requirements-build.txt requirements-demo.txt requirements-dashboard.txt | $(VENV)/bin/pip
	$(INSTALL) -r requirements-demo.txt -r requirements-dashboard.txt
	$(INSTALL_ALL)
	@touch $(VENV)/.demo $@

$(VENV)/.installed: pyproject.toml requirements-build.txt requirements-dev.txt | $(VENV)/bin/pip
	$(INSTALL) -r requirements-dev.txt
	$(INSTALL_ALL)
	@touch $(VENV)/.demo $(VENV)/.dashboard $@

demo: $(VENV)/.demo  ## run the main jobs against an embedded PostgreSQL and local stand-ins
	$(BIN)/python -m sandbox demo

dashboard: $(VENV)/.dashboard  ## serve the dashboard on the data of the demo
	$(BIN)/python -m sandbox dashboard

test: dev  ## run the test suite
	$(BIN)/python -m pytest -n 4 --dist worksteal

screenshots: dev  ## take the pictures of the dashboard again (needs Chromium)
	DASHBOARD_SCREENSHOTS=docs $(BIN)/python -m pytest -q tests/dashboard/test_browser.py -k picture

faults: dev  ## test with kills, outages and millions of rows (takes an hour)
	$(BIN)/python -m pytest tests/faults --long --timeout 14400

lint: dev  ## check the code, the workflows, the Compose file and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types/artwork_backfill
	for folder in dashboard jobs shared sql; do ln -sfn "$(CURDIR)/$$folder" build/types/artwork_backfill/$$folder; done
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

docs: dev  ## rewrite the generated parts of the documentation
	$(BIN)/python docs/generate.py

image:  ## build the container image (needs docker, or DOCKER=podman)
	$(DOCKER) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--build-arg CREATED=$(CREATED) --build-arg SOURCE=$(SOURCE) $(BUILD_OPTIONS) \
		--tag $(IMAGE):$(TAG) --tag $(IMAGE):latest .

# Needs docker with buildx and the registry. Dependabot keeps the digest current afterwards.
base-digest:  ## pin the base of the image to the current digest of its tag
	base=$$(sed -n 's/^FROM \(python:[^@ ]*\).*/\1/p' Dockerfile) && \
	digest=$$($(DOCKER) buildx imagetools inspect "$$base" --format '{{.Manifest.Digest}}') && \
	sed -i "s|^FROM python:[^ ]*|FROM $$base@$$digest|" Dockerfile

bench: dev  ## measure speed and memory
	$(BIN)/python -m bench

PIN = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

# The developers' file constrains the others, so that all can be installed together.
requirements:  ## pin the newest requirements (needs uv)
	$(PIN) --upgrade --extra dev --extra dashboard pyproject.toml -o requirements-dev.txt
	$(PIN) --upgrade -c requirements-dev.txt pyproject.toml -o requirements.txt
	$(PIN) --upgrade -c requirements-dev.txt --extra demo pyproject.toml -o requirements-demo.txt
	$(PIN) --upgrade -c requirements-dev.txt --extra dashboard pyproject.toml -o requirements-dashboard.txt
	printf 'setuptools>=77\nsetuptools-scm>=9\n' | $(PIN) --upgrade -c requirements-dev.txt - -o requirements-build.txt

clean:  ## remove everything that the other targets create
	rm -rf $(VENV) .sandbox reports build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
