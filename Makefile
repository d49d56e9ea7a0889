# `make demo` and `make test` do all set-up themselves; `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
PREFIX ?= /usr/local
PLUGIN_DIR ?=
MODEL ?= weights/demo.safetensors
INPUT ?=
FRAMES ?= 90
SECONDS ?= 60
TARGET := $(or $(CARGO_TARGET_DIR),target)
MASAM := $(TARGET)/release/masam
PLUGIN := $(TARGET)/release/libmasam.so
SHARE := $(TARGET)/release/share
INSTALL = PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' PLUGIN_DIR='$(PLUGIN_DIR)' TARGET='$(TARGET)' scripts/install.sh

.PHONY: help setup build program plugin cuda cuda-check demo test test-deb format lint doc fuzz bench bench-live install uninstall deb clean

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo INPUT=video.mp4 [MODEL=model.safetensors]   lays masks over your own video"

setup: ## Installs what is missing (Debian and its relatives), or says what to install
	@scripts/setup.sh

build: program plugin ## Program, plugin, manual and completions, below target/release
	@mkdir -p $(SHARE)/completions
	$(MASAM) man $(SHARE)/man1
	@for shell in bash zsh fish; do $(MASAM) completions $$shell > $(SHARE)/completions/masam.$$shell; done

program: setup
	$(CARGO) build --release --locked

plugin: setup ## Builds the GStreamer plugin, target/release/libmasam.so
	$(CARGO) plugin --locked
	@echo "use it with: export GST_PLUGIN_PATH=$(abspath $(TARGET)/release)"

cuda: setup ## Program and plugin with CUDA, target/cuda/release, on a machine that needs neither toolkit nor card
	scripts/cuda.sh

cuda-check: cuda ## What the CUDA build does on a machine without a driver
	scripts/cuda-check.sh

demo: program ## Masks over INPUT=, or over a generated scene: demo/overlay.mp4 and demo/contact-sheet.png
	@mkdir -p demo
ifeq ($(INPUT),)
	rm -rf demo/scene
	$(MASAM) phantom --out demo/scene --sequences 1 --frames $(FRAMES) --seed 7 --video
	$(MASAM) run demo/scene/seq_1.mp4 --model $(MODEL) -o demo/overlay.mp4 --contact-sheet demo/contact-sheet.png
else
	$(MASAM) run "$(INPUT)" --model $(MODEL) -o demo/overlay.mp4 --contact-sheet demo/contact-sheet.png
endif
	@ls -l demo/overlay.mp4 demo/contact-sheet.png

test: build format lint ## Every check: format, lints, tests, pipelines, documentation
	$(MASAM) selftest
	$(CARGO) test --release --locked
	$(MAKE) --no-print-directory doc
	$(MAKE) --no-print-directory cuda-check

format:
	$(CARGO) fmt --check

lint: setup
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

doc: setup ## API documentation, target/doc/masam
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps

fuzz: setup ## Every fuzz target for SECONDS= each (60); needs nightly Rust and cargo-fuzz
	scripts/fuzz.sh $(SECONDS)

bench: program ## Seconds per clip and per kernel on this machine
	$(MASAM) bench --config demo
	$(MASAM) bench --config vit_b --runs 3
	$(CARGO) bench --locked --bench kernels

bench-live: program ## Delay, true mask age, time in the elements, masks a second, jitter: an hour, on a machine with nothing else to do
	$(MASAM) latency
	$(CARGO) test --release --locked --test chain_time --test overlay_speed --test carry_benefit --test mask_rate \
	  --test live_jitter -- --ignored --nocapture --test-threads 1
	MASAM_SOAK_FRAMES=100000 $(CARGO) test --release --locked --test live_soak -- --nocapture

install: ## Copies what `make build` made to below PREFIX (/usr/local), the plugin to where GStreamer looks (or PLUGIN_DIR)
	@$(INSTALL) install

uninstall: ## Takes away what `make install` copied there
	@$(INSTALL) uninstall

deb: build ## The same as a Debian package for this release of Debian, target/masam_*.deb
	TARGET='$(TARGET)' scripts/deb.sh

test-deb: deb ## Installs the package in a fresh Debian and uses it there; needs root and debootstrap
	TARGET='$(TARGET)' scripts/deb-check.sh

clean: ## Removes what was built
	$(CARGO) clean
	rm -rf demo
