# Everything a person or CI does with this repository; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.NOTPARALLEL:

JOBS ?= $(shell nproc)
TEST_JOBS ?= 2
PYTHON ?= python3
BUNDLE ?= .deps
export TORCH_DIR FARSKIP_DEPS PYTHON JOBS

.PHONY: help deps venv build bench test test-long demo deps-bundle format format-check clean

help: ## this list
	@echo "farskip: overlap the communication of mixture-of-experts layers. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings (make build NAME=VALUE):"
	@echo "  TORCH_DIR=DIR       your own libtorch or torch wheel instead of the project's venv"
	@echo "  FARSKIP_DEPS=DIR    all other dependencies from a folder made by deps-bundle: no root, apt or network needed"
	@echo "  PIP_ARGS=...        for the venv, e.g. PIP_ARGS='--index-url URL' for a wheel of libtorch without CUDA"
	@echo "  JOBS=N              compile jobs ($(JOBS)); TEST_JOBS=N tests at a time ($(TEST_JOBS))"

deps: ## install missing Debian packages (root or sudo)
	@scripts/deps.sh tool library test demo

venv: ## make .venv with the torch wheel, unless TORCH_DIR is set
	@PIP_ARGS="$(PIP_ARGS)" scripts/venv.sh

build: ## build/farskip
	@scripts/deps.sh tool library
	@PIP_ARGS="$(PIP_ARGS)" scripts/venv.sh
	@scripts/configure.sh release build
	@cmake --build build -j $(JOBS) --target farskip

bench: build ## the programs of bench/, in build/bench
	@cmake --build build -j $(JOBS) --target benchmarks

test: build ## build, then every test that takes no more than minutes
	@scripts/deps.sh test
	@cmake --build build -j $(JOBS)
	@ctest --test-dir build --output-on-failure -j $(TEST_JOBS)

test-long: deps venv ## sanitizers, fuzzing, soak, other compilers and peers: about an hour (ONLY=PATTERN for some)
	@scripts/test_long.sh $(ONLY)

demo: build ## train a small mixture-of-experts model on two ranks and see its overlap
	@scripts/deps.sh demo
	@scripts/demo.sh

deps-bundle: ## fill BUNDLE (.deps) for builds with FARSKIP_DEPS
	@scripts/deps_bundle.sh $(BUNDLE)

format: ## clang-format every source file
	@scripts/format.sh -i

format-check: ## fail where clang-format would change something
	@scripts/format.sh --dry-run --Werror

clean: ## remove what was built (not .venv, not the bundle)
	@rm -rf build build-*/
