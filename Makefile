# Everything runs in .venv; the first call of any target sets it up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

demo: $(READY)  ## the digits experiment through papermill
	@$(BIN)/dda_run digits

test: $(READY)  ## all notebooks, then tests/
	@scratch=$$(mktemp -d) && export XDG_CACHE_HOME=$$scratch DDA_RUNS=$$scratch/runs OMP_NUM_THREADS=1 && \
	$(BIN)/nbdev-test && $(BIN)/python -m pytest; status=$$?; rm -rf $$scratch; exit $$status

lab: $(READY)   ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab nbs

readme: $(READY)  ## README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to markdown --no-input --output-dir . --output README nbs/index.ipynb

$(READY): settings.ini setup.py pyproject.toml
	@echo "Setting up .venv: PyTorch and the rest come from the package registry, about 5 GB"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("dda_nb needs Python 3.11 to 3.13, found %d.%d; say make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: demo test lab readme
