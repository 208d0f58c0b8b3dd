# `make` lists the targets. The work is done in scripts/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
MODEL ?= qwen3-0p6b-cpu
export INSTALL FORCE DEBIAN_MIRROR MODELS JOBS YES

.PHONY: help build bump pins demo demo-down docker-engine base-image wheelhouse card check-card up down weights prune lock-weights verify-weights weights-export weights-import cache-export cache-import verify status logs report key keys key-rotate key-revoke usage api-key \
        setup lock sbom audit fmt rule-tests dashboards check check-dashboards check-flags test test-compiled test-e2e test-observability test-e2e-more test-e2e-cycles test-full fuzz bench bench-throughput tune bench-gateway bench-versus bench-crowd bench-hostile bench-limits bench-priorities bench-scrapes soak bench-weights bench-peers bench-page proofs-page twin clean

##@ Try it
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
demo: ## Run the whole stack with a tiny twin of Qwen3, no GPU needed (INSTALL=1 also installs Docker)
	@scripts/demo up
demo-down: ## Remove everything that `make demo` made
	@scripts/demo down

##@ Prepare a host
docker-engine: ## Use the running Docker Engine, or print how to install one (INSTALL=1 installs it)
	@scripts/docker-engine
base-image: ## Make a Debian base image on a host without an image registry (FORCE=1: on any host)
	@scripts/base-image
wheelhouse: ## Fetch the pinned vLLM and PyTorch wheels with this host's pip, for builds (MODEL=slug)
	@scripts/wheelhouse $(MODEL)
key: ## Make an API key, print it once, and write its hash and rights into GATEWAY_API_KEYS_FILE (NAME=..., and any of MODELS= RPM= TPM_IN= TPM_OUT= CONCURRENCY= MONTHLY_TOKENS= PRIORITY=interactive|normal|bulk WEIGHT= NOT_BEFORE= EXPIRES= ADMIN=1)
	@scripts/keys add '$(NAME)' '--models=$(MODELS)' '--rpm=$(RPM)' '--tpm-in=$(TPM_IN)' '--tpm-out=$(TPM_OUT)' '--concurrency=$(CONCURRENCY)' '--monthly-tokens=$(MONTHLY_TOKENS)' '--priority=$(PRIORITY)' '--weight=$(WEIGHT)' '--not-before=$(NOT_BEFORE)' '--expires=$(EXPIRES)' '--admin=$(ADMIN)'
keys: ## List the API keys: rights, state, and the first digits of their hashes
	@scripts/keys list
key-rotate: ## Make another API key for a name; the one before works until the next key-rotate (NAME=...)
	@scripts/keys rotate '$(NAME)'
usage: ## Print the requests and tokens of each API key (FORMAT=table|csv|json SINCE=2026-11-01 UNTIL=2026-11-30 BY=key,model,day)
	@scripts/usage '--format=$(FORMAT)' '--since=$(SINCE)' '--until=$(UNTIL)' '--by=$(BY)'
key-revoke: ## Take the API keys of a name back, within seconds (NAME=...)
	@scripts/keys revoke '$(NAME)'
api-key: ## Print a new API key, and its hashed line for a key file without rights
	@scripts/keys new

##@ Operate
build: setup ## Build a model's images, and check that their vLLM accepts serve.yaml (MODEL=slug)
	@scripts/build '$(MODEL)'
card: setup ## Show what a model needs, and what was proven (MODEL=slug)
	@PYTHONPATH=docker $(PYTHON) -m cards show '$(MODEL)'
check-card: setup ## Check whether GPUs can hold a model (MODEL=slug, and any of TP= EP=0|1 GPUS= GPU_MEMORY_GB=)
	@PYTHONPATH=docker $(PYTHON) -m cards check '$(MODEL)' 'TP=$(TP)' 'EP=$(EP)' 'GPUS=$(GPUS)' 'GPU_MEMORY_GB=$(GPU_MEMORY_GB)'
up: ## Start a model and all it needs (MODEL=slug)
	docker compose up -d $(MODEL)
down: ## Stop everything; weights and metrics stay
	docker compose --profile '*' down
weights: ## Show what is on the weights volume, and whether it is still what was verified
	@scripts/weights
prune: ## Remove from the weights volume what no slug links to and no worker uses, after asking (YES=1: without asking)
	@scripts/prune
lock-weights: ## Write docker/<slug>/weights.lock from what the hub lists now, and show what changed (MODEL=slug)
	@scripts/lock-weights '$(MODEL)'
verify-weights: ## Read every byte of the published weights; corrupt files are withdrawn and fetched again (SLUGS='a b', else all)
	@scripts/verify-weights $(SLUGS)
weights-export: ## Write published weights in parts, for a host without internet (MODEL=slug DIR=path, PART_BYTES=4000000000, FROM=1)
	@scripts/weights-export '$(MODEL)' '$(DIR)' '$(PART_BYTES)' '$(FROM)'
weights-import: ## Read such parts, disk by disk, verify and publish them (MODEL=slug DIR=path)
	@scripts/weights-import '$(MODEL)' '$(DIR)'
cache-export: ## Write what vLLM compiled for a model to one file, for another node of the same kind (MODEL=slug TO=file)
	@scripts/cache-export '$(MODEL)' '$(TO)'
cache-import: ## Take over such a file before a model is started; it has code, so trust it like the image (MODEL=slug FROM=file)
	@scripts/cache-import '$(MODEL)' '$(FROM)'
verify: ## Load the weights with Transformers and generate a few tokens, without vLLM (MODEL=slug)
	@scripts/verify $(MODEL)
logs: ## Follow the logs of a model's worker and jobs (MODEL=slug)
	@docker compose --profile '*' logs --tail 200 --follow $$(docker compose --profile '*' config --services | grep -xE '$(MODEL)(-weights|-check)?')
report: ## Write a bug report: versions, configuration (secrets masked), states, metrics and last log lines in one file
	@scripts/report $(FILE)
status: ## Show every slug with its state and workers, as JSON
	@scripts/ops /workers

##@ Pins
pins: setup ## Show every pinned vLLM: its age, whether it can still be fetched, whether it ran on a GPU
	@scripts/pins
bump: setup ## Pin another vLLM build: MODEL=slug and COMMIT=<40 hex> or VERSION=x.y.z
	@scripts/bump "$(MODEL)" "$(COMMIT)" "$(VERSION)"

##@ Develop
setup: .venv/.ready ## Make the Python environment from the hash-locked requirements
.venv/.ready: requirements-dev.lock gateway/pyproject.toml model-cache/pyproject.toml
	@scripts/setup
lock: ## Rewrite all requirements locks with releases at least 7 days old (scripts/lock SLUG: that of one image; --any-age)
	@scripts/lock
sbom: setup ## Write what each image and the tests install to out/sbom, as CycloneDX
	@scripts/sbom
audit: setup ## Ask whether a locked package is known to be vulnerable; needs pip-audit's service
	@scripts/audit
fmt: setup ## Format and fix what ruff can fix
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .
check-flags: setup ## Ask the pinned vLLM whether it accepts serve.yaml (MODEL=slug; else all slugs)
	@$(PYTHON) scripts/check_flags.py $(if $(filter file,$(origin MODEL)),,$(MODEL))
rule-tests: setup ## Rewrite promtool's tests of the rules from tests/contract/rule_cases.py
	$(PYTHON) -m tests.contract.rule_cases 1m > observability/prometheus/rules_test.yaml
	$(PYTHON) -m tests.contract.rule_cases 5m > observability/prometheus/rules_slow_test.yaml
dashboards: setup ## Rewrite Grafana's dashboards from observability/boards
	$(PYTHON) -m observability.boards observability/grafana/dashboards
check: setup ## Check lint, format, types, import layers, Compose files
	@scripts/check
check-dashboards: setup ## Check the dashboards against Grafana's own types (fetches TypeScript)
	@scripts/schema
test: setup ## Run unit, integration and contract tests; no Docker, no GPU (INSTALL=1 also installs redis-server)
	@scripts/redis-for-tests
	$(PYTHON) -m pytest -n 2 --dist loadfile
test-compiled: setup ## Run the gateway's integration tests on its compiled form (INSTALL=1 also installs a C compiler and redis-server)
	@scripts/compile-gateway
	@scripts/redis-for-tests
	PYTHONPATH=out/compiled $(PYTHON) -m pytest -n 2 --dist loadfile tests/integration/gateway
test-e2e: setup ## Test the real stack in containers with the openai client (MODELS=all: every model's twin; CLIENTS=1: other clients too)
	@$(if $(CLIENTS),scripts/clients)
	@scripts/test-e2e $(if $(CLIENTS),-m 'not full or clients')
test-observability: setup check-dashboards ## Test dashboards, rules, alerts under faults and the webhook on the real stack
	@scripts/test-e2e -m '' tests/e2e/test_metrics.py tests/e2e/test_rules.py tests/e2e/test_alerts.py tests/e2e/test_dashboards.py tests/e2e/test_webhook.py
test-e2e-more: setup ## Test popular clients, `make bench`, faults under load and corrupt weights on the real stack
	@scripts/clients
	@scripts/test-e2e -m full tests/e2e/test_clients.py tests/e2e/test_bench.py tests/e2e/test_faults.py tests/e2e/test_hang.py tests/e2e/test_weights.py tests/e2e/test_carry.py tests/e2e/test_draft.py tests/e2e/test_flags.py
test-e2e-cycles: setup ## Go down and up twenty times, and kill containers at random for RESTARTS_S (7200)
	@scripts/test-e2e -m full tests/e2e/test_cycles.py
test-full: setup ## Run every bar at full count, about six hours; writes docs/test-report.md (BARS='check soak': some of them)
	@scripts/test-full $(BARS)
fuzz: setup ## Send random input to the gateway's parsers, connections and routes, each for SECONDS (60), JOBS (2) at a time
	@scripts/fuzz $(SECONDS)
bench: setup ## Run vLLM's load generator on a running model, directly and through the gateway (MODEL=slug, BENCH='--help': options)
	@scripts/bench '$(MODEL)' $(BENCH)
bench-throughput: ## Measure a model's engine without a server (MODEL=slug, not running; BENCH: options)
	@scripts/bench-throughput '$(MODEL)' $(BENCH)
tune: setup ## Look for values of serve.yaml that do better on this host (MODEL=slug, not running; TTFT_MS= TPOT_MS=, else most tokens/s; LOSSY=1; TUNE='--help')
	@PYTHONPATH=docker $(PYTHON) -m bench.tune '$(MODEL)' --ttft-ms '$(TTFT_MS)' --tpot-ms '$(TPOT_MS)' --lossy '$(LOSSY)' $(TUNE)
bench-gateway: setup ## Measure what a request and a chunk cost the gateway and its peers (BENCH='--help': parts of it)
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.gateway --max-us-per-request 90 --max-us-per-chunk 30 --json out/bench-gateway.json $(BENCH)
bench-versus: setup ## Measure what a request and a chunk cost against another build of the gateway, in turns (OLD=folder, BENCH='--turns 80')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.versus '$(OLD)' out/compiled $(BENCH)
bench-crowd: setup ## Measure what fifty clients notice of a thousand slow ones (BENCH='--rounds 5')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.crowd $(BENCH)
bench-hostile: setup ## Measure what fifty streams notice of a client that sends the worst bodies (BENCH='--seconds 10')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.hostile $(BENCH)
bench-limits: setup ## Measure on a running vLLM what keys with limits get under 200 clients, and check their bills (WORKER=http://host:port MODEL=served-name)
	$(PYTHON) -m bench.limits '$(WORKER)' '$(MODEL)' $(BENCH)
bench-priorities: setup ## Measure on a running vLLM what a bulk key costs an interactive one (WORKER=host:port MODEL=served-name)
	$(PYTHON) -m bench.priorities '$(WORKER)' '$(MODEL)' $(BENCH)
bench-scrapes: setup ## Measure what Prometheus' scrapes cost gateway, launcher and weights job (BENCH='--rounds 3')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled:model-cache/src:. $(PYTHON) -m bench.scrapes --json out/scrapes.json $(if $(PAGE),--page $(PAGE)) $(BENCH)
soak: setup ## Load one gateway for MINUTES (120): memory, open files and cost must not grow
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.soak --json out/soak.json --minutes $(or $(MINUTES),120)
bench-weights: setup ## Measure what the weights job costs: hashing, fetching, starting again, memory (BENCH='--rounds 3')
	@mkdir -p out
	PYTHONPATH=model-cache/src:. $(PYTHON) -m bench.weights $(if $(PAGE),--page $(PAGE)) $(BENCH)
bench-peers: ## Fetch the gateways to compare with into out/peers: vllm-router, sglang-router, smg, LiteLLM, nginx
	@scripts/bench-peers
bench-page: setup ## Write docs/performance.md and its plot from the last `make bench-gateway`
	@$(PYTHON) -m bench.page out/bench-gateway.json
proofs-page: setup ## Write docs/proofs.md from the records in bench/gpu/records
	@$(PYTHON) -m bench.gpu.page
twin: ## Train the twins again
	@scripts/twin
clean: ## Remove caches and the Python environment
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache out
