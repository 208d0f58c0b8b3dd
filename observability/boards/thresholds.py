"""What is promised to clients and what a machine bears.

The alerts of prometheus/rules.yaml have the same figures, which tests/contract/test_dashboards.py compares.
"""

ERROR_BUDGET = 0.001  # the share of a month's requests that may fail
BROKEN = 0.01  # of a model's requests
TTFT_P95_S = 10
QUEUE_WAIT_S = 10
KV_USE = 0.95
PREEMPTIONS_PER_S = 1
KEY_BUDGET, KEY_BUDGET_RED = 0.8, 0.95  # of a month's tokens
LOOP_LAG_P99_S = 0.05
GPU_CELSIUS = 87
GPU_MEMORY_CELSIUS = 95
