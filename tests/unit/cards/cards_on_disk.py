"""Cards written to a directory, whole or with one fact changed."""

from __future__ import annotations

from pathlib import Path

SLUG = "big-model"
CARD = """
slug: big-model
weights: {repo: owner/name, format: BF16, bytes: 1000000, licence: MIT, architectures: [TinyForCausalLM]}
hardware:
  gpus: 8
  gpu_memory_bytes: 80000000000
  driver: "580"
  shape: {heads: 64, kv_heads: 8, experts: {count: 4, intermediate: 1280, block: 128}}
  layouts: [{tensor_parallel: 8, expert_parallel: true}]
  layouts_because: blocks
  load_s: {at_1_gb_per_s: 1}
serving:
  {context: 10, model_context: 20, parsers: {reasoning: x}, sampling: {}, images: {per_prompt: 1}, vllm_minimum: "1.2"}
pin:
  vllm: {version: "1.10.0", commit: "5df63a720", wheel: vllm.whl, sha256: HASH}
  torch: {version: "2.0", wheel: torch.whl, sha256: HASH}
candidate: {commit: COMMIT, verified: false}
proven: [{date: 2026-11-20, vllm: "1.10.0", gpus: 4 x H200, how: random weights}]
not_proven: the real checkpoint
""".replace("HASH", "a" * 64).replace("COMMIT", "b" * 40)

FOR_HOPPER = CARD.replace('driver: "580"', 'driver: "580"\n  compute_capabilities: ["9.0"]')


def write(directory: Path, text: str = CARD, serve: str = "tensor-parallel-size: 8\n") -> Path:
    """Writes the card of SLUG below `directory`; returns the card's path."""
    slug = directory / SLUG
    slug.mkdir(exist_ok=True)
    (slug / "serve.yaml").write_text(serve)
    (slug / "card.yaml").write_text(text)
    return slug / "card.yaml"
