# Everything runs in .venv; the first call of a target that needs it sets it up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# what `make quick` runs: notebooks of these folders, and what holds the package together but its slowest two tests
QUICK := core/ or data/ or bank/ or filtering/ or package and not code_runs and not cheap

help:            ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

demo: $(READY)   ## the digits experiment through papermill
	@$(BIN)/dda_run digits

lab: $(READY)    ## JupyterLab on the notebooks
	@PYTHONPATH=docs $(BIN)/jupyter lab nbs

format: $(READY) ## notebooks, tests and scripts set as ruff sets them
	@$(BIN)/ruff format

lint: $(READY)   ## ruff, the limits of docs/style.py, and that dda_nb/ is what the notebooks export: seconds
	@status=0; \
	$(BIN)/ruff check --quiet --output-format concise || status=1; \
	$(BIN)/ruff format --check --quiet || { echo 'not formatted: make format'; status=1; }; \
	$(BIN)/python docs/style.py --check || status=1; \
	$(BIN)/python docs/exported.py || status=1; \
	exit $$status

quick: lint      ## what to run before each commit: lint, some notebooks and tests; under two minutes
	@$(PYTEST) tests/test_notebooks.py tests/test_package.py -k '$(QUICK)'

test: $(READY)   ## notebooks and tests
	@$(PYTEST)

slow: $(READY)   ## the tests that take minutes each: more kills, comparisons, whole experiments
	@$(PYTEST) -m slow

versions:        ## the tests on each Python that the README names and that is installed; an hour or more
	@$(PYTHON) docs/versions.py

docs: $(READY)   ## the site: by Quarto into _docs/ where it is installed, otherwise by Sphinx into _build/html/
	@export PYTHONPATH=docs; if command -v quarto > /dev/null; then $(BIN)/nbdev-docs; \
	else $(BIN)/python docs/build.py && echo "_build/html/index.html"; fi

readme: $(READY) ## README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to markdown --no-input \
	    --output-dir . --output README nbs/index.ipynb
	@sed -i 's#](images/#](nbs/images/#' README.md

$(READY): settings.ini setup.py
	@echo "Setting up .venv: PyTorch and the rest come from the package registry, about 5 GB"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or \
	    sys.exit("dda_nb needs Python 3.11 to 3.13, found %d.%d; say make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: help demo lab format lint quick test slow versions docs readme
