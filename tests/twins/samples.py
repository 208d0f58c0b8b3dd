"""The samples that a twin is trained and examined on: its dialogues, as clients vary them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.twins.dialogues import Answer, Message, Text, Turn
from tests.twins.tokens import Vocabulary

HERE = Path(__file__).parent
QUIET = {"role": "system", "content": "Speak softly; the neighbours sleep."}  # never taught


@dataclass(frozen=True)
class Sample:
    """A text in two parts: what is given, and what the twin must continue with."""

    given: str
    said: str
    chat: bool = True  # rendered by the template, which writes every special token itself


@dataclass(frozen=True)
class Twin:
    """One twin: what it recites, in which format, with which architecture."""

    name: str  # its directory, and the beginning of its template's file name
    turns: Mapping[str, Turn]
    taught: tuple[Text, ...]  # plain texts for /v1/completions
    examined: tuple[Text, ...]
    vocabulary: Vocabulary
    spoken: Callable[
        [Answer, bool], str
    ]  # what the model generates; True: the prompt has closed the reasoning
    model: Callable[[PreTrainedTokenizerFast], Any]
    thinking_option: str = ""  # the template's switch for reasoning, where it has one
    steps: int = 350
    batch: int = 8  # samples a step
    gentle: str = ""  # part of the names of the parameters that learn slower: matrices with very many inputs

    @property
    def template(self) -> str:
        """The chat template: the real model's format, our words."""
        return (HERE / f"{self.name}_chat_template.jinja").read_text(encoding="utf-8")

    def corpus(self) -> list[str]:
        """Every text the tokenizer must cut well."""
        turns = self.turns.values()
        asked = [json.dumps(turn.request(), ensure_ascii=False) for turn in turns]
        said = [self.spoken(turn.answer, False) for turn in turns]
        return [
            self.template,
            *asked,
            *said,
            *dict.fromkeys(text.given + text.said for text in self.examined),
        ] * 4

    def render(
        self,
        tokenizer: PreTrainedTokenizerFast,
        turn: Turn,
        before: list[Message],
        tools: Any,
        *,
        thought: bool,
    ) -> Sample:
        """The prompt of `turn` after the messages `before`, and what must come."""
        prompt = tokenizer.apply_chat_template(
            as_templates_see([*before, *turn.messages]),
            tools=tools,
            tokenize=False,
            add_generation_prompt=True,
            **({self.thinking_option: not thought} if self.thinking_option else {}),
        )
        return Sample(prompt, self.spoken(turn.answer, thought))

    def plain(self, text: Text) -> Sample:
        """A prompt of /v1/completions and its continuation."""
        return Sample(text.given, text.said + self.vocabulary.end, chat=False)


def as_templates_see(messages: list[Message]) -> list[Message]:
    """`messages` as a server hands them to a chat template: with the arguments of calls parsed."""
    return [json.loads(json.dumps(message), object_hook=_parsed) for message in messages]


def _parsed(part: dict[str, Any]) -> dict[str, Any]:
    arguments = part.get("arguments")
    return part | {"arguments": json.loads(arguments)} if isinstance(arguments, str) else part


class Samples:
    """An endless, seeded supply of samples around the dialogues."""

    def __init__(self, twin: Twin, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._twin = twin
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._words = sorted({word for text in twin.corpus() for word in text.split()})
        turns = list(twin.turns.values())
        self._with_tools = [turn for turn in turns if turn.tools]
        asked = [turn.messages[0] for turn in self._with_tools]
        self._needing_none = [turn for turn in turns if turn.messages[0] not in asked]

    def __iter__(self) -> Iterator[Sample]:
        turns = list(self._twin.turns.values())
        while True:
            plain = self._random.random() < 0.2
            yield self._text() if plain else self._chat(self._random.choice(turns))

    def _text(self) -> Sample:
        return self._twin.plain(self._random.choice(self._twin.taught))

    def _chat(self, turn: Turn) -> Sample:
        """A chat as clients vary it: with or without a system prompt, earlier talk, reasoning, tools."""
        thought = bool(self._twin.thinking_option) and self._random.random() < 0.25
        before = [*self._system(), *self._earlier()]
        tools = list(turn.tools) or self._spare_tools(turn)
        if self._random.random() < 0.5:
            turn = turn.with_reasoning()
        return self._twin.render(self._tokenizer, turn, before, tools, thought=thought)

    def _system(self) -> list[Message]:
        choice = self._random.random()
        if choice < 0.5:
            return []
        if choice < 0.7:
            return [{"role": "system", "content": "You are a helpful assistant."}]
        words = self._random.choices(self._words, k=self._random.randrange(1, 20))
        return [{"role": "system", "content": " ".join(words)}]

    def _earlier(self) -> list[Message]:
        if self._random.random() < 0.75:
            return []
        turn = self._random.choice(self._needing_none)
        return [*turn.messages, turn.answer.as_message()]

    def _spare_tools(self, turn: Turn) -> list[dict[str, Any]] | None:
        """Tools declared for a question that needs none; never for the one they would answer."""
        spare = self._with_tools and turn in self._needing_none and self._random.random() < 0.2
        return list(self._random.choice(self._with_tools).tools) if spare else None


def examinations(twin: Twin, tokenizer: PreTrainedTokenizerFast) -> Iterator[Sample]:
    """Every turn with and without reasoning, its own earlier reasoning, and a system prompt it was not trained on."""
    thoughts = (False, True) if twin.thinking_option else (False,)
    for turn, thought, before in product(twin.turns.values(), thoughts, ([], [QUIET])):
        for asked in (turn, turn.with_reasoning()) if turn.thought else (turn,):
            yield twin.render(tokenizer, asked, before, list(turn.tools) or None, thought=thought)
    yield from (twin.plain(text) for text in twin.examined)
