"""Stands for the configuration code that comes with the weights: plain, with all that config.json says."""

# mypy: disable-error-code="misc, import-not-found"
from typing import Any

from transformers import PretrainedConfig
from vllm.transformers_utils.configs.step3p5 import Step3p5Config


class TextConfig(Step3p5Config):
    """The language model's: as vLLM's own, with the draft's layer types, which that cuts off."""

    def __init__(self, layer_types: list[str] | None = None, **fields: object) -> None:
        super().__init__(layer_types=layer_types, **fields)
        self.layer_types = layer_types


class VisionConfig(PretrainedConfig):
    """The image encoder's."""

    model_type = "perception_encoder"


class Step3p7Config(PretrainedConfig):
    """Both."""

    model_type = "step3p7"

    def __init__(
        self,
        text_config: dict[str, Any] | None = None,
        vision_config: dict[str, Any] | None = None,
        **fields: object,
    ) -> None:
        self.text_config = TextConfig(**(text_config or {}))
        self.vision_config = VisionConfig(**(vision_config or {}))
        super().__init__(**fields)
