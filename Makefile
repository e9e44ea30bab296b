# make help lists what there is. Everything here works on a fresh Debian or Ubuntu with Rust, gcc and make.

CARGO  ?= cargo
PREFIX ?= /usr/local
CONFIG ?=

# Where rustup puts cargo, for shells that do not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Where cargo builds: CARGO_TARGET_DIR if it is set, else ./target.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# What loadtests/run is asked: make loadtest LOADTEST="plain tls --against nginx"
LOADTEST ?=

# What install puts in place.
BINARY ?= $(TARGET)/release/banyan

SHARE   = $(DESTDIR)$(PREFIX)/share
BINDIR  = $(DESTDIR)$(PREFIX)/bin
MANDIR  = $(SHARE)/man/man1
DOCDIR  = $(SHARE)/doc/banyan
UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system
USERDIR = $(DESTDIR)$(PREFIX)/lib/sysusers.d
TMPDIRS = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
BASHDIR = $(SHARE)/bash-completion/completions
ZSHDIR  = $(SHARE)/zsh/site-functions
FISHDIR = $(SHARE)/fish/vendor_completions.d
CONFDIR = $(DESTDIR)/etc/banyan
ROTATED = $(DESTDIR)/etc/logrotate.d

# Where the Debian package is put together, and the tools that setup brings.
STAGE = target/package
TOOLS = target/tools

# What `banyan version` tells of the build.
STAMP = BANYAN_REVISION="$$(git describe --always --dirty 2>/dev/null)" BANYAN_RUSTC="$$(rustc --version | cut -d' ' -f2)"

.DEFAULT_GOAL := help
.PHONY: help setup build release run test bench loadtest smoke floods fuzz lint install uninstall deb package-check sbom clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the build needs beside Rust (cmake, a C compiler); the others call it
	@sh .ci/setup

run: build ## Run the demo, or a configuration: make run CONFIG=gateway.yaml
	$(TARGET)/release/banyan $(if $(CONFIG),run -c $(CONFIG),demo)

build: setup ## Build the release binary
	$(STAMP) $(CARGO) build --release

release: setup ## Build what is released, in target/dist: by a profile of what the gateway does, a quarter cheaper a request
	packaging/release $(TARGET)/dist

test: setup ## Run all tests
	@sh .ci/setup tests
	$(CARGO) test --no-fail-fast

lint: setup ## Formatting, clippy and documentation, none with a warning
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

bench: setup ## Run the benches, and count a request's instructions
	$(CARGO) bench
	benches/instructions/run

loadtest: setup ## Measure every hop beside nginx, HAProxy and a bare Pingora, for half an hour or so: see loadtests/README.md
	@sh .ci/setup loadtests
	$(STAMP) loadtests/run $(LOADTEST)

smoke: build ## Load the demo gateway for a few seconds
	loadtests/smoke $(TARGET)/release/banyan

floods: build ## Flood the gateway while an honest client is timed, for about ten minutes: see loadtests/README.md
	loadtests/edge/run $(TARGET)/release/banyan floods

fuzz: ## Run each fuzz target for 60 s: see fuzz/README.md
	@sh .ci/setup c++
	sh fuzz/run

# Build first as yourself (make build), then install as root: root needs no Rust then.
install: ## Install binary, units, configuration, man pages, completions, documentation (DESTDIR, PREFIX, BINARY)
	@test -x $(BINARY) || $(MAKE) build
	install -D -m 0755 $(BINARY) $(BINDIR)/banyan
	install -d $(MANDIR) $(UNITDIR) $(USERDIR) $(TMPDIRS) $(CONFDIR) $(ROTATED) $(BASHDIR) $(ZSHDIR) $(FISHDIR)
	install -d $(DOCDIR)/examples $(DOCDIR)/monitoring $(DOCDIR)/operations
	install -d -m 0700 $(CONFDIR)/credentials
	sed 's|@BINDIR@|$(PREFIX)/bin|' systemd/banyan.service > $(UNITDIR)/banyan.service
	chmod 0644 $(UNITDIR)/banyan.service
	install -m 0644 systemd/banyan.sysusers $(USERDIR)/banyan.conf
	install -m 0644 systemd/banyan.tmpfiles $(TMPDIRS)/banyan.conf
	test -e $(CONFDIR)/banyan.yaml || install -m 0644 packaging/banyan.yaml $(CONFDIR)/banyan.yaml
	test -e $(ROTATED)/banyan || install -m 0644 packaging/banyan.logrotate $(ROTATED)/banyan
	install -m 0644 conf/examples/*.yaml systemd/banyan.socket $(DOCDIR)/examples
	install -m 0644 packaging/monitoring/* $(DOCDIR)/monitoring
	install -m 0644 docs/operations/*.md $(DOCDIR)/operations
	install -m 0644 README.md CHANGELOG.md docs/configuration.md $(DOCDIR)
	$(BINARY) man $(MANDIR)
	chmod 0644 $(MANDIR)/banyan*.1
	$(BINARY) completions bash > $(BASHDIR)/banyan
	$(BINARY) completions zsh > $(ZSHDIR)/_banyan
	$(BINARY) completions fish > $(FISHDIR)/banyan.fish
	chmod 0644 $(BASHDIR)/banyan $(ZSHDIR)/_banyan $(FISHDIR)/banyan.fish

uninstall: ## Remove what install put there, but no configuration
	rm -f $(BINDIR)/banyan $(UNITDIR)/banyan.service $(USERDIR)/banyan.conf $(TMPDIRS)/banyan.conf
	rm -f $(MANDIR)/banyan.1 $(MANDIR)/banyan-*.1 $(BASHDIR)/banyan $(ZSHDIR)/_banyan $(FISHDIR)/banyan.fish
	rm -rf $(DOCDIR)

deb: ## Build the Debian package from the release binary, or another: make deb BINARY=target/debug/banyan
	@sh .ci/setup deb
	@test -x $(BINARY) || $(MAKE) build
	rm -rf $(STAGE)
	umask 022 && $(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/$(STAGE) PREFIX=/usr BINARY=$(BINARY)
	strip --strip-debug $(STAGE)/usr/bin/banyan
	$(TOOLS)/bin/cargo-deb deb --no-build --no-strip $(DEBFLAGS)

package-check: ## Install, upgrade, remove and purge the package in a fresh Debian (root, debootstrap, network)
	packaging/lifecycle

sbom: ## Write the bill of materials (CycloneDX, JSON): target/banyan.cdx.json
	@sh .ci/setup sbom
	packaging/sbom

clean: ## Remove what was built
	$(CARGO) clean
