# make demo   install into .venv, then rebuild whatever is stale (dvc repro)
# make test   install into .venv, then run the tests
PYTHON := $(shell command -v python3)# resolved before .venv goes on the path
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo setup test test-browser lint format clean

demo: setup
ifdef QUICK
	pipeline preset quick
endif
	dvc repro
	@echo
	@echo "Open $(CURDIR)/reports/index.html in a browser."

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --progress-bar off \
		--constraint constraints.txt --editable '.[dev,export,teachers]'
	touch $@

test: setup
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal

test-browser: setup  ## needs Chromium and its driver: apt-get install chromium chromium-driver
	pytest -m browser

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff format .
	ruff check --fix .

clean:
	rm -rf .cache data models reports
