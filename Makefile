# make demo · make test · make distributed · make reliability · make full-size · make lint · make bench
# Everything runs in .venv, which is made and filled on first use; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
JOBS ?= 2
SST ?= data/sample
TOKENIZER ?= mini

.PHONY: demo test distributed lint bench reliability full-size clean

# On what is in the repository, so that it takes minutes wherever it runs; without the last two flags the same command
# takes gpt2 (124M) and the real data where they can be had.
demo: $(VENV)/installed
	$(RUN) classifier.py --fine-tune-mode full-model --model mini --data-dir data/sample

# JOBS=N for another number of processes; a file's tests stay together.
test: $(VENV)/installed-dev
	$(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile

# Training on several processes, sharded too; a run is stopped and goes on with another number of them.
distributed: $(VENV)/installed-dev
	$(RUN) -m pytest -m distributed

reliability: $(VENV)/installed-dev
	$(RUN) -m pytest -m reliability

# A model of KoGPT-2's size through every text task: 4 GiB of memory.
full-size: $(VENV)/installed-dev
	$(RUN) -m pytest -m full_size

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# On the bundled sample and tokenizer; SST=FOLDER with the SST files, TOKENIZER=gpt2 (or a folder with a tokenizer).
bench: $(VENV)/installed
	$(RUN) benchmarks/optimizer.py
	$(RUN) benchmarks/attention.py
	$(RUN) benchmarks/pretraining.py
	$(RUN) benchmarks/sentiment_training.py --data-dir $(SST) --tokenizer $(TOKENIZER)

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed; run make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
