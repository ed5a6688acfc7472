# `make demo`, `make serve` and `make test` each make .venv if it is not there.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PACKAGES := benchmarks export kernels runtime training
STUBS := .cache/stubs/tensorrt_bindings/tensorrt.pyi
PYSALIENCY := .cache/pysaliency-0.2.22
HOST_DRIVER := .cache/host-driver/made

.PHONY: demo serve test wheel lint links docs clips gpu-check train-nano clean

# The main job on the weights that ship and a natural clip, into demo-output/.
demo: $(INSTALLED)
	$(BIN)/python demo/demo.py

# The weights that ship, in a browser, over the visitor's camera or file: at the address that it prints. ARGS goes to
# salema-serve: make serve ARGS="--source clip.mp4".
serve: $(INSTALLED) salema-model/model.onnx
	$(BIN)/salema-serve $(ARGS)

salema-model/model.onnx: | $(INSTALLED)
	$(BIN)/salema-export --weights nano

# All tests, as many files side by side as there are cores, in tests/conftest.py's order. ARGS goes to pytest: make test ARGS="-k video -x".
# Compiled modules are kept even where Python is told not to: the tests start hundreds of processes.
test: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED) clips $(PYSALIENCY) $(HOST_DRIVER)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

# The source distribution, and the wheel built from it, in dist/.
wheel: $(INSTALLED)
	$(BIN)/python -m build --no-isolation

# pysaliency's metrics, which ours are held to: two modules of it, which need none of its dependencies (numba, PyTorch).
$(PYSALIENCY): $(INSTALLED)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary pysaliency --dest .cache $(@F:pysaliency-%=pysaliency==%)
	tar --extract --file $@.tar.gz --directory .cache $(@F)/pysaliency/metrics.py $(@F)/pysaliency/numba_utils.py
	touch $@

# A CUDA driver over host memory, PyCUDA built against it, and the oldest cuda-bindings: what needs a GPU runs on them.
$(HOST_DRIVER): tests/host_driver/build.py $(wildcard tests/host_driver/*.?pp) $(INSTALLED)
	$(BIN)/python tests/host_driver/build.py
	touch $@

# TensorRT's types, against which mypy checks our calls. Without its dependency, tensorrt itself; and a few of its lines
# are no Python, or hide it.
$(STUBS): Makefile
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .cache/stubs tensorrt-stubs==10.13.0.35.1
	sed -i -E 's/\bin: /in_: /; s/channel_axis: int\)/channel_axis: int = 0)/; s/^bool: /bool_: /' $@
	touch $@

# The root folders under the names they are imported by: what reads sources can't see a mapped editable install.
links:
	mkdir -p .cache/mypy/salema
	for folder in $(PACKAGES); do ln -sfn ../../../$$folder .cache/mypy/salema/$$folder; done

# The rooms' bounds (lines of a file and of a function, imports) are tests; they take two seconds, so they are asked first too.
lint: $(INSTALLED) $(STUBS) links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_rooms.py

# The documentation as a site, in site/. A dead link is an error.
docs: .venv/.docs links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.venv/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Everything that needs a GPU, in stages of 8 minutes at most (ARGS="--only tests --only kernels"), each with its results
# as JSON in OUT as they come. Takes the Python that GPU_PYTHON names, with PyTorch, ONNX Runtime and PyCUDA for CUDA in
# it; else it makes .venv-gpu, with TensorRT 10, which ONNX Runtime's provider is linked to. A copy without .git gets its commit from SALEMA_COMMIT.
OUT ?= gpu-check
GPU_PYTHON ?= .venv-gpu/bin/python
gpu-check: $(filter .venv-gpu/%,$(GPU_PYTHON:%/bin/python=%/.installed)) links
	PYTHONPATH=$(CURDIR)/.cache/mypy$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) -m salema.benchmarks.gpu.check --out $(OUT) $(ARGS)

.venv-gpu/.installed: pyproject.toml
	$(if $(filter x86_64,$(shell uname -m)),,$(error it installs on x86-64 only; elsewhere name a Python that has what is needed with GPU_PYTHON, see CONTRIBUTING.md))
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check -e '.[gpu,tensorrt,export,dev]' 'tensorrt<11'
	touch $@

# The weights that ship, made anew from photographs with fixations in DATA. First single photographs, at half size and
# whole, then clips made of them, in which the coefficient is learned. The runs are kept in RUN: what was begun goes on.
RUN ?= train-nano
TRAIN = $(BIN)/salema-train --dataset photographs --src $(DATA) --device cpu
BEGUN = $(if $(wildcard $(RUN)/$(1)/settings.json),--resume) -o $(RUN)/$(1)
train-nano: $(INSTALLED)
	$(if $(DATA),,$(error give the folder of photographs and fixations: make train-nano DATA=osie))
	$(TRAIN) --width 1/8 --clip-frames 1 --batch 10 --epochs 140 --until 60 --half-size 0.9 --validate-every 5 --seed 1 $(call BEGUN,half)
	$(TRAIN) --init $(RUN)/half/best.pt --clip-frames 1 --batch 10 --epochs 14 --half-size 0 --lr 5e-4 --weight-decay 0.05 --validate-every 2 --seed 2 $(call BEGUN,whole)
	$(TRAIN) --init $(RUN)/whole/best.pt --clip-frames 8 --batch 4 --epochs 2 --half-size 0 --lr 1e-4 --weight-decay 0.05 --average 0.99 --seed 3 $(call BEGUN,clips)
	$(BIN)/python -m salema.training.shipping.ship $(RUN)/clips nano

clips: $(INSTALLED)
	$(BIN)/python demo/fetch_clips.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else f"Python 3.10 or newer is needed, this is {v[0]}.{v[1]}; name another with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,export,dev]'
	touch $@

# All that is made anew in minutes: not train-nano, nor other runs of a training.
clean:
	rm -rf .venv .venv-gpu .cache build dist demo-output site *.egg-info
