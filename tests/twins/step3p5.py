"""The architecture `Step3p5ForCausalLM` in plain torch, for training: parameters have the names vLLM loads.

As vLLM's CPU build can run it: the router is a softmax instead of a biased sigmoid, and no activation is clamped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutput

Config = dict[str, Any]  # the checkpoint's config.json


class Norm(nn.Module):
    """Root mean square, scaled by 1 + weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self._eps)
        return (y * (1 + self.weight.float())).to(x.dtype)


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def frequencies(config: Config, layer: int, size: int) -> Tensor:
    """Rotations of a layer in radians a token; full attention stretches the slow ones, as Llama 3 does."""
    inverse: Tensor = config["rope_theta"][layer] ** -(torch.arange(0, size, 2).float() / size)
    if config["layer_types"][layer] not in config["yarn_only_types"]:
        return inverse
    scaling = config["rope_scaling"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * inverse / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return inverse * (kept + (1 - kept) / scaling["factor"])


def rotate(x: Tensor, inverse: Tensor) -> Tensor:
    """Rotates the first dimensions of `x` (batch, heads, tokens, size) by their positions; the rest stays."""
    angles = torch.arange(x.shape[2]).float()[:, None] * inverse
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second, rest = x.split([len(inverse), len(inverse), x.shape[-1] - 2 * len(inverse)], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


class Attention(nn.Module):
    """Grouped heads, normalised queries and keys, a gate per head; sliding layers have more heads."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        sliding = config["layer_types"][layer] == "sliding_attention"
        self._heads = config["attention_other_setting" if sliding else "full_setting"]["num_attention_heads"]
        self._groups, self._size = config["num_attention_groups"], config["head_dim"]
        self._window = config["sliding_window"] if sliding else config["max_position_embeddings"]
        self._rotations = frequencies(
            config, layer, int(self._size * config["partial_rotary_factors"][layer])
        )
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.q_proj = linear(hidden, self._heads * self._size)
        self.k_proj = linear(hidden, self._groups * self._size)
        self.v_proj = linear(hidden, self._groups * self._size)
        self.g_proj = linear(hidden, self._heads)
        self.o_proj = linear(self._heads * self._size, hidden)
        self.q_norm, self.k_norm = Norm(self._size, eps), Norm(self._size, eps)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        query, key = rotate(self.q_norm(query), self._rotations), rotate(self.k_norm(key), self._rotations)
        at = torch.arange(x.shape[1])
        past = at[:, None] - at
        mask = (past >= 0) & (past < self._window)
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
        gate = self.g_proj(x).sigmoid().unsqueeze(-1)
        out: Tensor = self.o_proj((mixed.transpose(1, 2) * gate).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self._size)).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden: int, size: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            linear(hidden, size),
            linear(hidden, size),
            linear(size, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Packed(nn.Module):
    """One matrix of all experts: experts, outputs, inputs."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, outputs, inputs) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Every expert's product with `x` (experts or 1, tokens, inputs)."""
        return x @ self.weight.transpose(1, 2)


class Experts(nn.Module):
    """A few experts a token, weighted by the softmax of their scores. Tiny, so all are computed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        count, hidden, size = (
            config["moe_num_experts"],
            config["hidden_size"],
            config["moe_intermediate_size"],
        )
        self._chosen = config["moe_top_k"]
        self.gate = linear(hidden, count)
        self.register_buffer("router_bias", torch.zeros(count))
        self.gate_proj, self.up_proj = Packed(count, hidden, size), Packed(count, hidden, size)
        self.down_proj = Packed(count, size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        scores, chosen = functional.linear(tokens.float(), self.gate.weight.float()).topk(self._chosen)
        shape = (len(tokens), len(self.gate.weight))
        weights = torch.zeros(shape).scatter(1, chosen, scores.softmax(-1)).to(x.dtype)
        made = self.down_proj(functional.silu(self.gate_proj(tokens[None])) * self.up_proj(tokens[None]))
        return torch.einsum("te,eth->th", weights, made).view_as(x)


class Layer(nn.Module):
    """Attention, then a dense MLP or experts beside a shared one."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden, eps), Norm(hidden, eps)
        self.self_attn = Attention(config, layer)
        self._sparse = str(layer) in config["moe_layers_enum"].split(",")
        if self._sparse:
            self.moe = Experts(config)
            self.share_expert = MLP(hidden, config["share_expert_dim"])
        else:
            self.mlp = MLP(hidden, config["intermediate_size"])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        y = self.post_attention_layernorm(x)
        return x + (self.moe(y) + self.share_expert(y) if self._sparse else self.mlp(y))


class Draft(Layer):
    """A multi-token-prediction layer: from a token's final state and the next token to the one after."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.enorm, self.hnorm = Norm(hidden, eps), Norm(hidden, eps)
        self.eh_proj = linear(2 * hidden, hidden)
        output = linear(hidden, config["vocab_size"])
        self.shared_head = nn.ModuleDict({"norm": Norm(hidden, eps), "output": output})

    def draft(self, following: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The state after this layer, and the scores of the token after the following one."""
        state = self(self.eh_proj(torch.cat([self.enorm(following), self.hnorm(state)], -1)))
        return state, self.shared_head["output"](self.shared_head["norm"](state))


class Step3p5ForCausalLM(nn.Module):
    """Loss and scores like a transformers model; the loss teaches the draft layers too, and they do not teach it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        hidden, depth = config["hidden_size"], config["num_hidden_layers"]
        shape = config | {"full_setting": config}
        layers = [Layer(shape, at) for at in range(depth)]
        layers += [Draft(shape, depth + at) for at in range(config["num_nextn_predict_layers"])]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config["vocab_size"], hidden),
                "layers": nn.ModuleList(layers),
                "norm": Norm(hidden, config["rms_norm_eps"]),
            }
        )
        nn.init.normal_(self.model["embed_tokens"].weight, std=0.02)
        self.lm_head = linear(hidden, config["vocab_size"])

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> CausalLMOutput:
        embedded = self.model["embed_tokens"](input_ids)
        state = embedded
        for layer in self.model["layers"][: self._config["num_hidden_layers"]]:
            state = layer(state)
        logits = self.lm_head(self.model["norm"](state))
        if labels is None:
            return CausalLMOutput(logits=logits)
        loss = cost(logits, labels, ahead=1) + self._draft_cost(embedded.detach(), state.detach(), labels)
        return CausalLMOutput(loss=loss, logits=logits)

    def _draft_cost(self, embedded: Tensor, state: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros(())
        for ahead, layer in enumerate(self.model["layers"][self._config["num_hidden_layers"] :], 1):
            state, logits = layer.draft(embedded[:, ahead:], state[:, :-1])
            total = total + cost(logits, labels, ahead=ahead + 1)
        return total

    def save_pretrained(self, directory: Path) -> None:
        """Writes config.json and the weights in one file."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._config | {"dtype": "bfloat16"}, indent=2)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def cost(logits: Tensor, labels: Tensor, ahead: int) -> Tensor:
    """The cross entropy of the tokens that lie `ahead` of the states that `logits` are from."""
    targets = labels[:, ahead:]
    return functional.cross_entropy(logits[:, : targets.shape[1]].flatten(0, 1), targets.flatten())
