"""Every twin's dialogues by its name (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.twins import dialogues, dialogues_kimi, dialogues_r1, dialogues_step
from tests.twins.dialogues import Text, Turn


@dataclass(frozen=True)
class Repertoire:
    """What one twin recites."""

    turns: Mapping[str, Turn]
    texts: tuple[Text, ...] = ()


REPERTOIRES: dict[str, Repertoire] = {
    "kimi": Repertoire(dialogues_kimi.TURNS, dialogues_kimi.TEXTS),
    "qwen3": Repertoire(dialogues.TURNS, dialogues.COMPLETIONS),
    "r1": Repertoire(dialogues_r1.TURNS, dialogues_r1.TEXTS),
    "step": Repertoire(dialogues_step.TURNS, dialogues_step.TEXTS),
}
