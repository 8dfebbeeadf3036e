# What developers type. `make demo` and `make test` install what they lack or say in a line what to install.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
TOOLS = $(shell scripts/tools.sh)

.PHONY: help demo test test-fast test-kubernetes bench image goldens manifests lint clean

help:
	@echo 'make demo       a real model on three nodes, fetched from its hub once'
	@echo 'make test       every test'
	@echo 'make test-fast  the tests to run all day'
	@echo 'make test-kubernetes  the tests in a real cluster; KUBERNETES=1.37 for another version'
	@echo 'make bench      the figures of the README'
	@echo 'make image      the container image, as an archive in target/image'
	@echo 'make manifests  deploy/manifests, rendered from the chart'

demo:
	@scripts/check.sh
	@tools=$$(scripts/tools.sh) && \
	$(CARGO) build --release --quiet --features testing --bins && \
	target/release/demo "$$tools"

test:
	@scripts/check.sh
	@scripts/test.sh all

test-fast:
	@scripts/check.sh
	@scripts/test.sh fast

test-kubernetes:
	@scripts/check.sh
	@scripts/kubernetes.sh

image:
	@scripts/image.sh

manifests goldens:
	@scripts/goldens.sh

bench:
	@scripts/check.sh
	@tools=$$(scripts/tools.sh) && \
	$(CARGO) build --release --quiet --features testing --bins && \
	target/release/bench "$$tools" && target/release/swarmbench

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets --features testing -- --deny warnings

clean:
	$(CARGO) clean
