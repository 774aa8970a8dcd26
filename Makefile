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
	@PYTHONPATH=docs $(BIN)/jupyter lab nbs

docs: $(READY)  ## the site: by Quarto into _docs/ where it is installed, otherwise by Sphinx into _build/html/
	@if command -v quarto > /dev/null; then PYTHONPATH=docs $(BIN)/nbdev-docs; else PYTHONPATH=docs $(BIN)/python docs/build.py && echo "_build/html/index.html"; fi

readme: $(READY)  ## README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to markdown --no-input --output-dir . --output README nbs/index.ipynb
	@sed -i 's#](images/#](nbs/images/#' README.md

$(READY): settings.ini setup.py
	@echo "Setting up .venv: PyTorch and the rest come from the package registry, about 5 GB"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("dda_nb needs Python 3.11 to 3.13, found %d.%d; say make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: demo test lab docs readme
