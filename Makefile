# make help lists what there is. Everything here works on a fresh Debian or Ubuntu with Rust, gcc and make.

CARGO  ?= cargo
PREFIX ?= /usr/local
CONFIG ?=

# Where rustup puts cargo, for shells that do not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Where cargo builds: CARGO_TARGET_DIR if it is set, else ./target.
TARGET := $(or $(CARGO_TARGET_DIR),target)

BINDIR        = $(DESTDIR)$(PREFIX)/bin
MANDIR        = $(DESTDIR)$(PREFIX)/share/man/man1
UNITDIR       = $(DESTDIR)$(PREFIX)/lib/systemd/system
USERDIR       = $(DESTDIR)$(PREFIX)/lib/sysusers.d
BASHDIR       = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR        = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISHDIR       = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
CONFDIR       = $(DESTDIR)/etc/banyan
EXAMPLEDIR    = $(DESTDIR)$(PREFIX)/share/doc/banyan/examples

# What `banyan version` tells of the build.
STAMP = BANYAN_REVISION="$$(git describe --always --dirty 2>/dev/null)" BANYAN_RUSTC="$$(rustc --version | cut -d' ' -f2)"

.DEFAULT_GOAL := help
.PHONY: help setup build run test bench loadtest floods fuzz lint install uninstall clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the build needs beside Rust (cmake, a C compiler); the others call it
	@sh .ci/setup

run: build ## Run the demo, or a configuration: make run CONFIG=gateway.yaml
	$(TARGET)/release/banyan $(if $(CONFIG),run -c $(CONFIG),demo)

build: setup ## Build the release binary
	$(STAMP) $(CARGO) build --release

test: setup ## Run all tests
	$(CARGO) test --no-fail-fast

lint: setup ## Formatting, clippy and documentation, none with a warning
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

bench: setup ## Run the benches
	$(CARGO) bench

loadtest: build ## Load the demo gateway for a few seconds: see loadtests/README.md
	loadtests/smoke $(TARGET)/release/banyan

floods: build ## Flood the gateway while an honest client is timed, for about ten minutes: see loadtests/README.md
	loadtests/edge/run $(TARGET)/release/banyan floods

fuzz: ## Run each fuzz target for 60 s: see fuzz/README.md
	@sh .ci/setup c++
	sh fuzz/run

# Build first as yourself (make build), then install as root: root needs no Rust then.
install: ## Install binary, unit, example configuration, man pages and completions (DESTDIR, PREFIX)
	@test -x $(TARGET)/release/banyan || $(MAKE) build
	install -D -m 0755 $(TARGET)/release/banyan $(BINDIR)/banyan
	install -d $(MANDIR) $(UNITDIR) $(USERDIR) $(CONFDIR) $(EXAMPLEDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR)
	sed 's|@BINDIR@|$(PREFIX)/bin|' systemd/banyan.service > $(UNITDIR)/banyan.service
	chmod 0644 $(UNITDIR)/banyan.service
	install -m 0644 systemd/banyan.sysusers $(USERDIR)/banyan.conf
	install -m 0644 conf/examples/*.yaml systemd/banyan.socket $(EXAMPLEDIR)
	test -e $(CONFDIR)/banyan.yaml || install -m 0644 conf/examples/first-gateway.yaml $(CONFDIR)/banyan.yaml
	$(TARGET)/release/banyan man $(MANDIR)
	$(TARGET)/release/banyan completions bash > $(BASHDIR)/banyan
	$(TARGET)/release/banyan completions zsh > $(ZSHDIR)/_banyan
	$(TARGET)/release/banyan completions fish > $(FISHDIR)/banyan.fish

uninstall: ## Remove what install put there, but no configuration
	rm -f $(BINDIR)/banyan $(UNITDIR)/banyan.service $(USERDIR)/banyan.conf $(MANDIR)/banyan.1 $(MANDIR)/banyan-*.1
	rm -f $(BASHDIR)/banyan $(ZSHDIR)/_banyan $(FISHDIR)/banyan.fish
	rm -rf $(EXAMPLEDIR)

clean: ## Remove what was built
	$(CARGO) clean
