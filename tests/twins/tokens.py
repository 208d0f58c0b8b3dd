"""The tokenizer of a twin: byte-level BPE over its own dialogues, with the real model's marks as single tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = Regex(  # Qwen's way to cut text before merging: digits alone, words with their leading space
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Vocabulary:
    """What the tokenizer must know besides its texts."""

    size: int  # tokens in all
    end: str  # ends a turn, and the generation
    pad: str
    control: tuple[str, ...]  # further tokens that are skipped when text is decoded
    marks: tuple[str, ...]  # tokens that a decoder keeps, for the parsers
    context: int  # tokens
    begin: str = ""  # put before every plain prompt, where the real tokenizer does so
    tokenizer_class: str = "PreTrainedTokenizerFast"


def train_tokenizer(vocabulary: Vocabulary, corpus: Iterable[str], template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocabulary.size` tokens for `corpus`, with the chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_merges(vocabulary, corpus),
        eos_token=vocabulary.end,
        pad_token=vocabulary.pad,
        additional_special_tokens=list(vocabulary.control),
        model_max_length=vocabulary.context,
        **({"bos_token": vocabulary.begin} if vocabulary.begin else {}),
    )
    tokenizer.add_tokens(list(vocabulary.marks))  # not "special": a decoder must keep them for the parsers
    if vocabulary.begin:
        _put_before(tokenizer, vocabulary.begin)
    tokenizer.chat_template = template
    return tokenizer


def _merges(vocabulary: Vocabulary, corpus: Iterable[str]) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(WORDS, behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    named = {vocabulary.end, vocabulary.pad, vocabulary.begin, *vocabulary.control, *vocabulary.marks} - {""}
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary.size - len(named),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return bpe


def _put_before(tokenizer: PreTrainedTokenizerFast, token: str) -> None:
    """`token` comes before every text that is encoded with special tokens: prompts, but not rendered chats."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.convert_tokens_to_ids(token))]
    )
