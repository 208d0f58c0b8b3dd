"""Which fields a request may have on each route, and which values: the tables, with the reason of each line.

They follow vLLM 0.32's request models, and what OpenAI's, Anthropic's and Cohere's clients send (vLLM ignores what it
does not know). A field that is in no table is refused unless GATEWAY_FIELD_POLICY is permissive.
docs/request-fields.md shows these tables; a test compares them."""

from collections.abc import Mapping
from typing import Final

from gateway.config.field_rules import Expression, Grammar, Items, Number, Object, Rule, Schema

MAX_TOKENS: Final = 10_000_000  # more than any model's context
MAX_TOKEN_ID: Final = 2_000_000  # more than any vocabulary has

# fields by route


def words(text: str) -> frozenset[str]:
    """Return the words of `text`: names of fields."""
    return frozenset(text.split())


SAMPLING: Final = words(
    "temperature top_p top_k min_p seed stop stop_token_ids bad_words n best_of max_tokens min_tokens ignore_eos"
    " frequency_penalty presence_penalty repetition_penalty length_penalty use_beam_search early_stopping"
    " include_stop_str_in_output skip_special_tokens spaces_between_special_tokens logit_bias logprobs prompt_logprobs"
    " logprob_token_ids allowed_token_ids truncate_prompt_tokens truncation_side repetition_detection watermarking"
    " thinking_token_budget"
)
GENERATION: Final = SAMPLING | words(
    "model stream stream_options stream_interval user priority session_id response_format structured_outputs echo"
    " add_special_tokens return_token_ids return_tokens_as_token_ids return_token_offsets include_reasoning"
    " metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention prompt_cache_options"
)
TEMPLATE: Final = words("messages add_generation_prompt continue_final_message chat_template_kwargs")
ANTHROPIC: Final = words(
    "model messages system tools tool_choice thinking output_config output_format chat_template_kwargs"
    " cache_control context_management mcp_servers container speed betas anthropic_beta anthropic_version"
)
POOLED: Final = words(
    "model user priority input add_special_tokens truncate_prompt_tokens truncation_side padding encoding_format"
    " embed_dtype endianness dimensions use_activation normalize"
)
SCORED: Final = words(
    "model user priority add_special_tokens truncate_prompt_tokens truncation_side padding use_activation instruction"
    " max_tokens_per_query max_tokens_per_doc chat_template_kwargs query queries documents items text_1 text_2 data_1"
    " data_2 top_n return_documents max_chunks_per_doc rank_fields"
)
AUDIO: Final = words(
    "file model language prompt response_format temperature stream stream_include_usage hotwords to_language"
    " stream_continuous_usage_stats timestamp_granularities chunking_strategy include keywords languages"
    " known_speaker_names known_speaker_references user n use_beam_search length_penalty include_stop_str_in_output"
    " top_p top_k min_p seed frequency_penalty presence_penalty repetition_penalty max_completion_tokens watermarking"
)
ROUTE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "chat_completions": GENERATION | TEMPLATE | words(
        "max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls functions function_call documents"
        " reasoning_effort reasoning thinking enable_thinking audio modalities moderation prediction verbosity"
        " web_search_options return_prompt_text"
    ),
    "completions": GENERATION | words("prompt suffix"),
    "responses": words(
        "model input instructions stream stream_options background include max_output_tokens max_tool_calls metadata"
        " parallel_tool_calls previous_response_id prompt reasoning include_reasoning service_tier store temperature"
        " text tool_choice tools top_logprobs top_p top_k min_p truncation user skip_special_tokens seed stop"
        " include_stop_str_in_output presence_penalty frequency_penalty repetition_penalty stop_token_ids ignore_eos"
        " logit_bias prompt_cache_key prompt_cache_retention prompt_cache_options safety_identifier session_id priority"
        " enable_response_messages previous_input_messages structured_outputs chat_template_kwargs watermarking"
        " access_programs client_metadata context_management conversation image moderation"
    ),
    "messages": ANTHROPIC | words(
        "max_tokens metadata stop_sequences stream temperature top_k top_p service_tier inference_geo watermarking"
        " user_profile_id diagnostics"
    ),
    "count_tokens": ANTHROPIC,
    "embeddings": POOLED | TEMPLATE | words("input_type"),
    "pooling": POOLED | TEMPLATE | words("task"),
    "classify": POOLED | TEMPLATE,
    "rerank": SCORED,
    "score": SCORED,
    "tokenize": TEMPLATE | words("model prompt add_special_tokens return_token_strs tools"),
    "detokenize": words("model tokens"),
    "transcriptions": AUDIO,
    "translations": AUDIO,
}  # fmt: skip

# fields that are refused on every route, in the permissive mode too

EMBEDS: Final = "CVE-2025-62164, CVE-2026-56340, CVE-2026-73557, PYSEC-2026-2303: tensors that end the engine"
TEMPLATES: Final = "CVE-2025-62426, CVE-2026-115918, PYSEC-2026-4344: a client's template runs in the worker"
LOADERS: Final = "CVE-2026-114053, CVE-2026-27893: they reach what loads a processor, code included"
READERS: Final = "CVE-2026-105758, CVE-2026-105760: they let the reader of media use memory without bound"
TRANSFER: Final = (
    "CVE-2025-32444, CVE-2025-29783: it names a host from which the engine takes a prompt's cache"
)
OUTDATED: Final = "vLLM ignores it, so the output would not be constrained: use `structured_outputs`"
REFUSED: Final[Mapping[str, str]] = {
    "chat_template": TEMPLATES,
    "mm_processor_kwargs": LOADERS,
    "media_io_kwargs": READERS,
    "prompt_embeds": EMBEDS,
    "kv_transfer_params": TRANSFER,
    "ec_transfer_params": TRANSFER,
    "vllm_xargs": "its members reach what `kv_transfer_params` reaches, and extensions of the engine",
    "cache_salt": "CVE-2025-46570: whoever knows another's salt can time what is in the prefix cache",
    "request_id": "workers mix up two requests of one id: send the header X-Request-Id",
    "guided_decoding_backend": "CVE-2025-29770: a backend that fills the disk with compiled grammars",
    "guided_json": OUTDATED,
    "guided_regex": OUTDATED,
    "guided_choice": OUTDATED,
    "guided_grammar": OUTDATED,
    "guided_whitespace_pattern": OUTDATED,
}
# The same for the content parts of messages and other input: members that they may not have, and types.
PART_ID: Final = "workers keep media under this name: it reads or replaces another client's"
REFUSED_PARTS: Final[Mapping[str, str]] = {
    "image_embeds": EMBEDS,
    "audio_embeds": EMBEDS,
    "video_embeds": EMBEDS,
    "prompt_embeds": EMBEDS,
    "uuid": PART_ID,
}
REFUSED_TYPES: Final = frozenset(name for name in REFUSED_PARTS if name.endswith("_embeds"))

# values

SAMPLER: Final = "out of it, the sampler's kernels compute nonsense for the whole batch, or fail"
TOO_MANY: Final = "the engine has room for so many; more end it"
INTEGERS: Final = "as `min_tokens`: no right request has more"
COMPILED: Final = "CVE-2026-105757, CVE-2026-55574: a grammar that takes minutes, or ends the engine"
REGEX: Final = Expression(1024, "CVE-2026-55574: an expression that takes minutes to compile")
GRAMMAR: Final = Grammar(32_768, COMPILED)
TOKENS: Final = Number(
    0, MAX_TOKENS, "CVE-2026-114051: a number out of bounds ends the engine's input thread"
)
LOGPROBS: Final = Number(0, 20, "the logprobs of a whole vocabulary exhaust the memory")
PENALTY: Final = Number(-2, 2, f"CVE-2026-105922: {SAMPLER}")
SHARE: Final = Number(0, 1, SAMPLER)
REPETITION: Final = "each token is compared with so many before it"
STOP: Final = Items(64, "each is looked for behind every token", longest=1024)
TEMPLATE_KWARGS: Final = {
    "chat_template": TEMPLATES,
    **dict.fromkeys(
        (
            "tokenize", "conversation", "padding", "truncation", "max_length", "return_tensors", "return_dict",
            "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "load_audio_from_video",
        ),
        "CVE-2025-62426: an argument of what renders the template, which blocks the worker",
    ),
    "mm_processor_kwargs": LOADERS,
    "trust_remote_code": LOADERS,
    "code_revision": LOADERS,
}  # fmt: skip
RULES: Final[Mapping[str, Rule]] = {
    "n": Number(0, 128, "CVE-2026-34756: a huge number of answers exhausts the memory; OpenAI takes 128"),
    "best_of": Number(0, 128, "CVE-2026-34756: as `n`"),
    "max_tokens": TOKENS,
    "max_completion_tokens": TOKENS,
    "max_output_tokens": TOKENS,
    "min_tokens": TOKENS,
    "thinking_token_budget": Number(-1, MAX_TOKENS, "CVE-2026-92365: a budget out of bounds ends the engine"),
    "thinking": Object(
        {"budget_tokens": Number(0, MAX_TOKENS, "CVE-2026-92365: as `thinking_token_budget`")},
        "CVE-2026-92365: as `thinking_token_budget`",
    ),
    "truncate_prompt_tokens": Number(-1, MAX_TOKENS, INTEGERS),
    "max_tokens_per_query": TOKENS,
    "max_tokens_per_doc": TOKENS,
    "max_tool_calls": Number(0, 10_000, INTEGERS),
    "stream_interval": Number(1, 1_000_000, INTEGERS),
    "dimensions": Number(1, 1_000_000, INTEGERS),
    "top_n": Number(0, 1_000_000, INTEGERS),
    "priority": Number(0, 1_000_000, "a lower number overtakes the requests of others; clients may only wait longer"),
    "logprobs": LOGPROBS,
    "top_logprobs": LOGPROBS,
    "prompt_logprobs": LOGPROBS,
    "logprob_token_ids": Items(128, TOO_MANY, number=Number(0, MAX_TOKEN_ID, SAMPLER)),
    "temperature": Number(0, 100, SAMPLER),
    "top_p": SHARE,
    "min_p": SHARE,
    "top_k": Number(-1, 2**31 - 1, SAMPLER),
    "frequency_penalty": PENALTY,
    "presence_penalty": PENALTY,
    "repetition_penalty": Number(0.01, 100, f"CVE-2026-105922: {SAMPLER}"),
    "length_penalty": Number(-100, 100, SAMPLER),
    "repetition_detection": Object(
        dict.fromkeys(("max_pattern_size", "min_pattern_size", "min_count"), Number(0, 10_000, REPETITION)), REPETITION
    ),
    "stop": STOP,
    "stop_sequences": STOP,
    "stop_token_ids": Items(128, TOO_MANY, number=Number(0, MAX_TOKEN_ID, SAMPLER)),
    "bad_words": Items(128, TOO_MANY, longest=1024),
    "allowed_token_ids": Items(1024, TOO_MANY, number=Number(0, MAX_TOKEN_ID, SAMPLER)),
    "logit_bias": Items(1024, TOO_MANY),
    "stream_options": Object(
        dict.fromkeys(("include_usage", "continuous_usage_stats", "include_obfuscation", "reasoning_summary_delivery")),
        "what the worker reads of it, and OpenAI's clients send", is_closed=True,
    ),
    "response_format": Schema(REGEX, GRAMMAR, COMPILED),
    "text": Schema(REGEX, GRAMMAR, COMPILED),
    "output_config": Schema(REGEX, GRAMMAR, COMPILED),
    "output_format": Schema(REGEX, GRAMMAR, COMPILED),
    "tools": Schema(REGEX, GRAMMAR, COMPILED, by_element=True),
    "functions": Schema(REGEX, GRAMMAR, COMPILED, by_element=True),
    "structured_outputs": Object(
        {
            "json": Schema(REGEX, GRAMMAR, COMPILED, is_text=True),
            "structural_tag": Schema(REGEX, GRAMMAR, COMPILED, is_text=True),
            "regex": REGEX,
            "whitespace_pattern": REGEX,
            "grammar": GRAMMAR,
            "choice": Items(4096, COMPILED, longest=4096),
            **dict.fromkeys(("json_object", "disable_any_whitespace", "disable_additional_properties")),
        },
        "CVE-2026-105757: the others are the engine's own, such as `_backend`", is_closed=True,
    ),
    "chat_template_kwargs": Object({}, "what a template reads is the model's own", refused=TEMPLATE_KWARGS),
}  # fmt: skip
