# make help lists the targets. All run in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt
.DEFAULT_GOAL := help
.PHONY: demo reproduce test test-all coverage test-lowest fuzz lint type docs bench dist clean help

demo: .venv/installed ## Train FMSD, full fine-tuning and a probe on embedded data, compare them, and judge a clip
	$(BIN)/python train.py -m experiments=demo hydra.sweep.dir=runs/demo-$(STAMP)
	$(BIN)/fmsd report runs=runs/demo-$(STAMP) out=runs/demo-$(STAMP)/report
	$(BIN)/python -m fmsd.data.synthetic.film runs/demo-$(STAMP)/clip.mp4
	$(BIN)/fmsd predict run=$$(echo runs/demo-$(STAMP)/fmsd_*) out=runs/demo-$(STAMP)/verdict runs/demo-$(STAMP)/clip.mp4
STAMP := $(shell date +%Y-%m-%d_%H-%M-%S)

# NAME is the table, OVERRIDES are for its trainings:
# make reproduce NAME=generalise OVERRIDES="data.root=FACES backbone.weights=FILE"
reproduce: .venv/installed ## Repeat a table of experiments/ with one seed
	$(BIN)/fmsd reproduce $(NAME) $(OVERRIDES)

test: .venv/installed-dev ## Run the tests that a commit needs (minutes)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: test ## Run every test, whole stories too
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

coverage: .venv/installed-dev ## Run every test and print the coverage (slower than test-all)
	$(BIN)/python -m pytest -n auto --dist worksteal --cov

test-lowest: .venv-lowest/installed ## Run the fast tests with the oldest dependencies allowed
	.venv-lowest/bin/python -m pytest -n auto --dist worksteal -m "not slow"

MINUTES ?= 30
fuzz: .venv/installed-dev ## Run commands with random mutations of words and files for MINUTES
	FMSD_FUZZ=$(MINUTES) $(BIN)/python -m pytest -s tests/fuzz

lint: .venv/installed-dev ## Check style and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: .venv/installed-dev ## Check types
	$(BIN)/pyright

docs: .venv/installed-dev ## Build the documentation into site/ without network; broken links fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed-dev ## Run every benchmark
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

dist: .venv/installed-dev ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build

clean: ## Remove the environment, caches and build products; runs stay
	rm -rf .venv .venv-lowest dist site .pytest_cache .coverage .ruff_cache .import_linter_cache .hypothesis
	rm -rf *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/'

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) -e '.[faces]'
	@touch $@

.venv/installed-dev: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@ .venv/installed

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install -q -c constraints.txt uv
	.venv-lowest/bin/uv pip compile -q --upgrade --resolution lowest-direct --extra dev \
		--python .venv-lowest/bin/python -o .venv-lowest/constraints.txt pyproject.toml
	.venv-lowest/bin/pip install -q -c .venv-lowest/constraints.txt -e '.[dev]'
	@touch $@
