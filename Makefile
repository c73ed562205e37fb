# Two commands on a fresh machine: `make demo` and `make test`. Needs Python >= 3.11, pip and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint clean

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/ready
	$(BIN)/emubench demo --out demo

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: .venv/ready
	$(BIN)/python -m pytest -m slow --durations=10

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv demo
