# quaywall. "make help" lists what there is.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
PREFIX  ?= /usr/local
SHARE    = $(DESTDIR)$(PREFIX)/share

.DEFAULT_GOAL := help
.PHONY: help build up test demo bench judge chaos matrix truth systemd browser lint generate install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

up: ## build, and put the policy in force; it is taken back after 60 s unless confirmed (root)
	@VERSION='$(VERSION)' scripts/up

build: ## build bin/quaywall
	CGO_ENABLED=0 scripts/go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/quaywall ./cmd/quaywall

test: ## run all tests, in network namespaces of their own (root); as an ordinary user those that need no root
	@scripts/test $(PACKAGES)

demo: ## a throw-away host with real containers, before and after, by real packets (root)
	@scripts/packages dockerd=docker.io iptables nft=nftables ipset ip=iproute2 nsenter=util-linux
	@scripts/go run ./internal/testkit/cmd/demo

bench: ## measure quaywall beside what it is compared with, into dist/bench.md and .json (root, three quarters of an hour)
	@scripts/packages dockerd=docker.io iptables nft=nftables ipset ip=iproute2 nsenter=util-linux
	@mkdir -p dist
	scripts/go test -tags bench -count=1 -timeout 90m ./internal/testkit/bench -args -report '$(CURDIR)/dist/bench'

judge: ## 10,000 random policies: the evaluator, the kernel by each backend, the simulator and the analyser must agree (root, two hours)
	@scripts/packages iptables nft=nftables ipset ip=iproute2
	scripts/go test ./internal/testkit/judge -run TestJudge -v -timeout 3h -policies 10000

KILLS   ?= 1000
MINUTES ?= 10
SEED    ?= 0

chaos: ## ten minutes (MINUTES=N) of mischief and 1,000 kills (KILLS=N) under traffic, and kills at each system call (root)
	@scripts/packages dockerd=docker.io iptables nft=nftables ipset conntrack ip=iproute2 nsenter=util-linux pgrep=procps
	scripts/go test ./internal/testkit/scenario -run 'TestChaos|KilledAtEachBoundary' -v -timeout 3h -args -kills '$(KILLS)' -chaos '$(MINUTES)m' -seed '$(SEED)' -boundaries

matrix: ## the scenarios with Docker 20.10, 26.1 and 28.5, and 29 from QUAYWALL_ENGINE29=DIR, into docs/matrix.md (root)
	@scripts/packages dockerd=docker.io iptables nft=nftables ipset conntrack ip=iproute2 nsenter=util-linux pgrep=procps
	engines=$$(scripts/engines) && scripts/go run ./internal/testkit/cmd/matrix $$engines

truth: ## hosts set up in many ways, with Docker 20.10, 26.1, 28.5 and QUAYWALL_ENGINE29: does explain say what packets do? into docs/truth.md (root)
	@scripts/packages dockerd=docker.io iptables nft=nftables ipset conntrack curl dbus-daemon=dbus-daemon ip=iproute2 nsenter=util-linux
	scripts/truth docs/truth.md

systemd: ## the units under a real systemd, booted, rebooted and powered off in a container of its own (root, Debian)
	@scripts/systemd

browser: ## the page of audit and the drawing of explain in a real browser, Chromium (root, Debian)
	@scripts/packages chromium chromedriver=chromium-driver
	scripts/go test -tags browser -count=1 -timeout 5m ./internal/testkit/browser

lint: ## check form, suspicious code and generated files
	@scripts/lint

generate: ## write the man pages, docs/commands.md and docs/json.md anew
	scripts/go run ./internal/docgen

install: build ## install the program, man pages and completions below PREFIX (/usr/local)
	install -D -m 755 bin/quaywall $(DESTDIR)$(PREFIX)/sbin/quaywall
	install -D -m 644 -t $(SHARE)/man/man8 docs/man/*.8
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	bin/quaywall completion bash > $(SHARE)/bash-completion/completions/quaywall
	bin/quaywall completion zsh > $(SHARE)/zsh/site-functions/_quaywall
	bin/quaywall completion fish > $(SHARE)/fish/vendor_completions.d/quaywall.fish

uninstall: ## remove what install installed; a policy in force stays in force (quaywall stop)
	rm -f $(DESTDIR)$(PREFIX)/sbin/quaywall $(SHARE)/man/man8/quaywall.8 $(SHARE)/man/man8/quaywall-*.8
	rm -f $(SHARE)/bash-completion/completions/quaywall $(SHARE)/zsh/site-functions/_quaywall
	rm -f $(SHARE)/fish/vendor_completions.d/quaywall.fish

clean: ## remove what was built
	rm -rf bin dist
