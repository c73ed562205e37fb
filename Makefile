# Two commands on a fresh machine: `make demo` and `make test`. Needs Python >= 3.11, pip and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint docs gpu clean

# What the demo needs: the package alone.
.venv/package: pyproject.toml constraints.txt
	@echo "making .venv and installing torch ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	@echo "installing emubench and what it needs ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

# What its developers need besides: the tests, the linters.
.venv/ready: .venv/package
	@echo "installing what developers need ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/package
	$(BIN)/emubench demo --out demo

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: .venv/ready
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile --durations=10

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, with the leaderboard: open docs/_build/index.html. Works offline; a warning is an error.
docs: .venv/ready
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build
	$(BIN)/emubench leaderboard build --out docs/_build/leaderboard

# All that a GPU is asked, in ten minutes at most; GPU=--dry-run walks through it on the CPU, GPU="--minutes 30" goes further.
gpu: .venv/ready
	$(BIN)/python -m benchmarks.gpu $(GPU)

clean:
	rm -rf .venv demo docs/_build
