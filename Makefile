# make demo       install into .venv, then rebuild whatever is stale (dvc repro)
# make test       install into .venv, then run the fast tests; test-slow, test-ray and test-browser
#                 run the rest
# make lint       ruff, its format and mypy
# make format     what ruff can mend
# make generated  dvc.yaml, params.yaml and docs/parameters.md anew, from the code
# make table      the table of small students on real images (DATA=FOLDER), or SMOKE=1; table-gpu
# make wheel      the package as a wheel, into dist/
VENV := .venv
# The python3 that .venv is made by, whether or not .venv is activated: that one has no pip.
PYTHON := $(shell PATH="$$(printf %s "$$PATH" | tr : '\n' | grep -vxF '$(CURDIR)/$(VENV)/bin' \
	| paste -sd :)"; command -v python3)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal

.PHONY: demo setup test test-slow test-ray test-browser lint format generated table table-gpu wheel clean

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
		--constraint constraints.txt pip --editable '.[dev,teachers]'
	touch $@

test: setup
	$(PYTEST)

$(VENV)/.slow: $(VENV)/.ready
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --progress-bar off \
		--constraint constraints.txt --editable '.[slow]'
	touch $@

test-slow: $(VENV)/.slow  ## real kills and whole runs
	$(PYTEST) -m slow

# Ray listens on every interface, whatever it is told: the tests have a network of their own
test-ray: setup  ## clusters of Ray and Dask on this machine; needs Linux
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --progress-bar off \
		--constraint constraints.txt --editable '.[ray,dask]'
	unshare --net --map-root-user sh -c 'ip link set lo up && OMP_NUM_THREADS=1 exec pytest -m ray tests/clusters'

test-browser: setup  ## needs Chromium and its driver: apt-get install chromium chromium-driver
	pytest -m browser

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff format .
	ruff check --fix .

generated: setup
	python -m kd3_stages.generate

# docs/table.md: what is in DATA, which rows ONLY finds, what the others do
TABLE = $(if $(DATA),--data '$(DATA)') $(if $(ONLY),--only '$(ONLY)') $(if $(LIST),--list) \
	$(if $(SPEED),--speed) $(if $(AGAIN),--again) $(if $(SMOKE),--smoke) \
	$(if $(RENDER),--render)

table: setup
	python -m benchmarks.cifar10 $(TABLE)

table-gpu: setup
	python -m benchmarks.cifar10 --gpu $(TABLE)

wheel:
	$(PYTHON) -m pip wheel --quiet --progress-bar off --no-deps --wheel-dir dist .

clean:
	rm -rf .cache data/crawl data/dedup data/distill data/embed data/evaluate data/inputs models reports
