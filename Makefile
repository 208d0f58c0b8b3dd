# `make` lists the targets. Each is thin: what it does lives in scripts/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
MODEL ?= qwen3-0p6b-cpu
export INSTALL FORCE DEBIAN_MIRROR MODELS JOBS YES

.PHONY: help build bump pins demo demo-down docker-engine base-image wheelhouse card check-card up down weights prune lock-weights verify-weights weights-export weights-import verify status logs report api-key \
        setup lock fmt rules dashboards check check-dashboards check-flags test test-compiled test-e2e test-observability test-e2e-more test-e2e-cycles test-full fuzz bench bench-throughput bench-gateway bench-crowd bench-hostile bench-scrapes soak bench-weights bench-peers bench-page proofs-page twin clean

##@ Try it
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
demo: ## The whole stack with a tiny twin of Qwen3, no GPU needed (INSTALL=1 also installs Docker)
	@scripts/demo up
demo-down: ## Remove all that `make demo` made
	@scripts/demo down

##@ Prepare a host
docker-engine: ## Use the Docker Engine that answers, or print the steps to get one (INSTALL=1 carries them out)
	@scripts/docker-engine
base-image: ## Make a Debian base image where no image registry answers (FORCE=1: even where one does)
	@scripts/base-image
wheelhouse: ## Fetch the pinned vLLM and PyTorch wheels with this host's pip, for builds (MODEL=slug)
	@scripts/wheelhouse $(MODEL)
api-key: ## Print a new API key, and its hashed line for GATEWAY_API_KEYS_FILE
	@docker compose run --rm --no-deps gateway new-key

##@ Operate
build: setup ## Build a model's images, and ask the worker's vLLM what it can (MODEL=slug)
	@scripts/build '$(MODEL)'
card: setup ## What a model needs, and what was proven (MODEL=slug)
	@PYTHONPATH=docker $(PYTHON) -m cards show '$(MODEL)'
check-card: setup ## May a model run so? (MODEL=slug, and any of TP= EP=0|1 GPUS= GPU_MEMORY_GB=)
	@PYTHONPATH=docker $(PYTHON) -m cards check '$(MODEL)' 'TP=$(TP)' 'EP=$(EP)' 'GPUS=$(GPUS)' 'GPU_MEMORY_GB=$(GPU_MEMORY_GB)'
up: ## Start a model and all it needs (MODEL=slug)
	docker compose up -d $(MODEL)
down: ## Stop everything; weights and metrics stay
	docker compose --profile '*' down
weights: ## What the weights volume holds, and whether it is still what was verified
	@scripts/weights
prune: ## Remove from the weights volume what no slug links to and no worker holds, after showing it (YES=1: without asking)
	@scripts/prune
lock-weights: ## Write docker/<slug>/weights.lock from what the hub lists now, and show what changed (MODEL=slug)
	@scripts/lock-weights '$(MODEL)'
verify-weights: ## Read every byte of what is published; what is wrong is withdrawn and fetched again (SLUGS='a b', else all)
	@scripts/verify-weights $(SLUGS)
weights-export: ## Published weights in parts for a host without a way out (MODEL=slug DIR=path, PART_BYTES=4000000000, FROM=1)
	@scripts/weights-export '$(MODEL)' '$(DIR)' '$(PART_BYTES)' '$(FROM)'
weights-import: ## Take such parts, disk by disk, verify and publish them (MODEL=slug DIR=path)
	@scripts/weights-import '$(MODEL)' '$(DIR)'
verify: ## Transformers loads the weights and generates a few tokens, without vLLM (MODEL=slug)
	@scripts/verify $(MODEL)
logs: ## The last lines of a model's worker and jobs, then what comes (MODEL=slug)
	@docker compose --profile '*' logs --tail 200 --follow $$(docker compose --profile '*' config --services | grep -xE '$(MODEL)(-weights|-check)?')
report: ## Versions, configuration (secrets masked), states, metrics and last logs in one file, for a bug report
	@scripts/report $(FILE)
status: ## Every slug with its state and workers, as JSON
	@scripts/ops /workers

##@ Pins
pins: setup ## Every pinned vLLM: its age, whether it can still be fetched, whether it ran on a GPU
	@scripts/pins
bump: setup ## Pin another vLLM build: MODEL=slug and COMMIT=<40 hex> or VERSION=x.y.z
	@scripts/bump "$(MODEL)" "$(COMMIT)" "$(VERSION)"

##@ Develop
setup: .venv/.ready ## Python environment from the hash-locked requirements
.venv/.ready: requirements-dev.lock gateway/pyproject.toml model-cache/pyproject.toml
	@scripts/setup
lock: ## Write every requirements lock anew (scripts/lock SLUG: that of one image)
	@scripts/lock
fmt: setup ## Format and fix what ruff can fix
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .
check-flags: setup ## Ask the pinned vLLM whether it accepts serve.yaml (MODEL=slug; without: all slugs)
	@$(PYTHON) scripts/check_flags.py $(if $(filter file,$(origin MODEL)),,$(MODEL))
rules: setup ## Write Prometheus' rules and their tests anew from observability/rules.py and tests/contract/rule_cases.py
	$(PYTHON) -m observability.rules > observability/prometheus/rules.yaml
	$(PYTHON) -m tests.contract.rule_cases 1m > observability/prometheus/rules_test.yaml
	$(PYTHON) -m tests.contract.rule_cases 5m > observability/prometheus/rules_slow_test.yaml
dashboards: setup ## Write Grafana's dashboards anew from observability/boards
	$(PYTHON) -m observability.boards observability/grafana/dashboards
check: setup ## Lint, format, types, import layers, Compose files, promises of the repository
	@scripts/check
check-dashboards: setup ## Grafana's own types judge the dashboards; a misspelt field fails (fetches TypeScript)
	@scripts/schema
test: setup ## Unit, integration and contract tests; no Docker, no GPU
	$(PYTHON) -m pytest -n 2 --dist loadfile
test-compiled: setup ## The gateway's integration tests again, on its compiled form (INSTALL=1 also installs a C compiler)
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m pytest -n 2 --dist loadfile tests/integration/gateway
test-e2e: setup ## The real stack in containers, driven by the openai client (MODELS=all: every model's twin; CLIENTS=1: others too)
	@$(if $(CLIENTS),scripts/clients)
	@scripts/test-e2e $(if $(CLIENTS),-m 'not full or clients')
test-observability: setup check-dashboards ## Dashboards, rules, alerts under faults, the webhook: on the real stack
	@scripts/test-e2e -m '' tests/e2e/test_metrics.py tests/e2e/test_rules.py tests/e2e/test_alerts.py tests/e2e/test_dashboards.py tests/e2e/test_webhook.py
test-e2e-more: setup ## Clients that people use, `make bench`, faults under load, corrupt weights
	@scripts/clients
	@scripts/test-e2e -m full tests/e2e/test_clients.py tests/e2e/test_bench.py tests/e2e/test_faults.py tests/e2e/test_hang.py tests/e2e/test_weights.py tests/e2e/test_carry.py tests/e2e/test_draft.py tests/e2e/test_flags.py
test-e2e-cycles: setup ## Down and up twenty times, and containers that end at random for RESTARTS_S (7200)
	@scripts/test-e2e -m full tests/e2e/test_cycles.py
test-full: setup ## Every bar at full count, about six hours; writes docs/test-report.md (BARS='check soak': some of them)
	@scripts/test-full $(BARS)
fuzz: setup ## Random input to the gateway's parsers, connections and routes, each for SECONDS (60), JOBS (2) at a time
	@scripts/fuzz $(SECONDS)
bench: setup ## vLLM's load generator against a running model, directly and through the gateway (MODEL=slug, BENCH='--help': options)
	@scripts/bench '$(MODEL)' $(BENCH)
bench-throughput: ## What a model's engine makes of its GPUs without a server (MODEL=slug, not running; BENCH: options)
	@scripts/bench-throughput '$(MODEL)' $(BENCH)
bench-gateway: setup ## What a request and a chunk cost the gateway, and each peer that is there (BENCH='--help': parts of it)
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.gateway --max-us-per-request 90 --max-us-per-chunk 30 --json out/bench-gateway.json $(BENCH)
bench-crowd: setup ## What fifty clients notice of a thousand that read a kilobyte a second (BENCH='--rounds 5')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.crowd $(BENCH)
bench-hostile: setup ## What fifty streams notice of one client that sends the worst bodies (BENCH='--seconds 10')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.hostile $(BENCH)
bench-scrapes: setup ## What being watched costs: Prometheus' questions to gateway, launcher and weights job (BENCH='--rounds 3')
	@scripts/compile-gateway
	PYTHONPATH=out/compiled:model-cache/src:. $(PYTHON) -m bench.scrapes --json out/scrapes.json $(if $(PAGE),--page $(PAGE)) $(BENCH)
soak: setup ## Load for MINUTES (120) on one gateway: memory, open files and cost stay what they are
	@scripts/compile-gateway
	PYTHONPATH=out/compiled $(PYTHON) -m bench.soak --json out/soak.json --minutes $(or $(MINUTES),120)
bench-weights: setup ## What the weights job costs: hashing, fetching, starting over, memory (BENCH='--rounds 3')
	@mkdir -p out
	PYTHONPATH=model-cache/src:. $(PYTHON) -m bench.weights $(if $(PAGE),--page $(PAGE)) $(BENCH)
bench-peers: ## Fetch the gateways to compare with into out/peers: vllm-router, sglang-router, smg, LiteLLM, nginx
	@scripts/bench-peers
bench-page: setup ## Write docs/performance.md and its plot from the last `make bench-gateway`
	@$(PYTHON) -m bench.page out/bench-gateway.json
proofs-page: setup ## Write docs/proofs.md from the records in bench/gpu/records
	@$(PYTHON) -m bench.gpu.page
twin: ## Train the twins anew
	@scripts/twin
clean: ## Remove caches and the Python environment
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache out
