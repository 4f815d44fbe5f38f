# `make test` and `make demo` need Python 3.11 and a package index, nothing else.
PYTHON ?= python3.11
RUN ?= runs/demo
# Processes that share the test files; one takes up to 9 GB.
TESTERS ?= 2

export JAX_COMPILATION_CACHE_DIR ?= $(HOME)/.cache/durian_jax/tests
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5

.PHONY: install test lint demo demo-train clean

.venv/installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[dev]'
	touch $@

install: .venv/installed

test: install lint
	.venv/bin/python -m pytest -rs -n $(TESTERS) --dist loadfile --no-loadscope-reorder \
	  -m 'not slow' tests

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

demo: install
	PATH="$(CURDIR)/.venv/bin:$$PATH" launch/demo.sh "$(RUN)"

demo-train: install
	PATH="$(CURDIR)/.venv/bin:$$PATH" launch/demo_train.sh "$(RUN)"

clean:
	rm -rf .venv .cache build *.egg-info
