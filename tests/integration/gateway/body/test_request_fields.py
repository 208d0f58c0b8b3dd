"""Which fields reach a worker: what is known to harm it is refused with a 400, what clients rightly send is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, COMPLETIONS, Gateway, Site

RESPONSES, MESSAGES, EMBEDDINGS = "/v1/responses", "/v1/messages", "/v1/embeddings"
SPEECH = "/v1/audio/transcriptions"
LARGE = 40_000  # bytes of a body that is scanned, where a small one is parsed
Fields = Mapping[str, Any]
HI = [{"role": "user", "content": "hi"}]
IMAGE = "data:image/png;base64,iVBORw0KGgo="
BASES: Mapping[str, Fields] = {
    CHAT: {"messages": HI},
    COMPLETIONS: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    MESSAGES: {"messages": HI, "max_tokens": 9},
    EMBEDDINGS: {"input": "hi"},
    "/v1/pooling": {"input": "hi"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/tokenize": {"messages": HI},
}
DEEP = json.loads('{"properties":{"a":' * 25 + "{}" + "}}" * 25)
DEEPER = "[" * 70 + "]" * 70


def part(**part: object) -> Fields:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]}


def tool(schema: Fields) -> Fields:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def pattern(text: str) -> Fields:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": text}}}


LONG, REPEATED = "(a|b)" * 400, "(a{1,99999}){3}"
HARMFUL: list[tuple[str, str, Fields, str]] = [  # the weakness, the route, the fields, and which of them is named
    ("CVE-2026-34756 huge n", CHAT, {"n": 1_000_000}, "n"),
    ("CVE-2026-34756 huge n", COMPLETIONS, {"n": "1_000_000"}, "n"),
    ("CVE-2026-34756 huge n", COMPLETIONS, {"best_of": 1e9}, "best_of"),
    ("CVE-2026-114051 min_tokens", CHAT, {"min_tokens": 2**63}, "min_tokens"),
    ("CVE-2026-114051 min_tokens", COMPLETIONS, {"max_tokens": -(2**40)}, "max_tokens"),
    ("CVE-2026-114051 min_tokens", RESPONSES, {"max_output_tokens": 2**64 - 1}, "max_output_tokens"),
    ("CVE-2026-114051 min_tokens", EMBEDDINGS, {"truncate_prompt_tokens": 2**62}, "truncate_prompt_tokens"),
    ("CVE-2026-92365 thinking budget", CHAT, {"thinking_token_budget": 2**62}, "thinking_token_budget"),
    ("CVE-2026-92365 thinking budget", MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 2**62}},
     "thinking.budget_tokens"),
    ("CVE-2026-105922 penalties", CHAT, {"repetition_penalty": 1e308}, "repetition_penalty"),
    ("CVE-2026-105922 penalties", COMPLETIONS, {"presence_penalty": -1e9}, "presence_penalty"),
    ("CVE-2026-105922 penalties", RESPONSES, {"frequency_penalty": "nan"}, "frequency_penalty"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"regex": LONG}}, "structured_outputs.regex"),
    ("CVE-2026-55574 regex", COMPLETIONS, {"structured_outputs": {"regex": REPEATED}}, "structured_outputs.regex"),
    ("CVE-2026-55574 regex", CHAT, {"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": pattern(LONG)}}}, "response_format"),
    ("CVE-2026-55574 regex", CHAT, tool(pattern(REPEATED)), "tools"),
    ("CVE-2026-55574 regex", CHAT, tool({"patternProperties": {LONG: {}}}), "tools"),
    ("CVE-2026-55574 regex", RESPONSES, {"text": {"format": {"type": "json_schema", "schema": pattern(LONG)}}}, "text"),
    ("CVE-2026-55574 regex", MESSAGES, {"output_config": {"format": {"schema": pattern(LONG)}}}, "output_config"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"json": json.dumps(pattern(LONG))}},
     "structured_outputs.json"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"regex": "((a{1,100}){,100} ){9}"}},
     "structured_outputs.regex"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"regex": r"\\u{9999}[b] {2,} \)"}},
     "structured_outputs.regex"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"regex": "a{200}{200}b{0}"}}, "structured_outputs.regex"),
    ("CVE-2026-55574 regex", CHAT, {"structured_outputs": {"regex": "a{" + "9" * 900 + "}"}},
     "structured_outputs.regex"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"grammar": 'root ::= ("a"{200}) {200}'}},
     "structured_outputs.grammar"),
    ("CVE-2026-105757 structured output", CHAT, tool({"type": "string", "maxLength": 2_000_000}), "tools"),
    ("CVE-2026-105757 structured output", CHAT, {"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "array", "minItems": 1e9}}}}, "response_format"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"json": '{"pattern": NaN}'}},
     "structured_outputs.json"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"json": json.dumps(json.dumps(pattern(LONG)))}},
     "structured_outputs.json"),
    ("too many objects", CHAT, {"chat_template_kwargs": {"a": [[]] * 4000}}, "chat_template_kwargs"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"_backend": "x", "regex": "a"}},
     "structured_outputs._backend"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"grammar": "root ::= " + "a " * 20_000}},
     "structured_outputs.grammar"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"structural_tag": DEEPER}},
     "structured_outputs.structural_tag"),
    ("CVE-2026-105757 structured output", CHAT, {"structured_outputs": {"choice": ["a"] * 5000}},
     "structured_outputs.choice"),
    ("CVE-2025-29770 outlines cache", CHAT, {"guided_decoding_backend": "outlines", "guided_regex": "a"},
     "guided_decoding_backend"),
    ("CVE-2025-62426 templates", CHAT, {"chat_template": "{{ 1 }}"}, "chat_template"),
    ("CVE-2025-62426 templates", CHAT, {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
     "chat_template_kwargs.chat_template"),
    ("CVE-2025-62426 templates", "/v1/tokenize", {"chat_template_kwargs": {"tokenize": True}},
     "chat_template_kwargs.tokenize"),
    ("CVE-2026-115918 templates", RESPONSES, {"chat_template": "{{ 1 }}"}, "chat_template"),
    ("CVE-2026-115918 templates", RESPONSES, {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
     "chat_template_kwargs.chat_template"),
    ("PYSEC-2026-4344 templates", MESSAGES, {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
     "chat_template_kwargs.chat_template"),
    ("PYSEC-2026-4344 templates", EMBEDDINGS, {"chat_template": "{{ 1 }}"}, "chat_template"),
    ("CVE-2025-62164 prompt_embeds", COMPLETIONS, {"prompt_embeds": "gAJ9"}, "prompt_embeds"),
    ("CVE-2026-56340 prompt_embeds", CHAT, part(type="image_embeds", image_embeds="gAJ9"),
     "messages.content.image_embeds"),
    ("CVE-2026-73557 prompt_embeds", CHAT, part(type="prompt_embeds", data="gAJ9"), "messages.content.prompt_embeds"),
    ("PYSEC-2026-2303 prompt_embeds", "/v1/pooling", {"messages": [{"content": [{"audio_embeds": "gAJ9"}]}]},
     "messages.content.audio_embeds"),
    ("CVE-2026-114053 remote code", CHAT, {"mm_processor_kwargs": {"code_revision": "evil"}}, "mm_processor_kwargs"),
    ("CVE-2026-27893 remote code", RESPONSES, {"mm_processor_kwargs": {"trust_remote_code": True}},
     "mm_processor_kwargs"),
    ("CVE-2026-105758 media", CHAT, {"media_io_kwargs": {"video": {"fps": 1e9}}}, "media_io_kwargs"),
    ("CVE-2026-105760 media", RESPONSES, {"media_io_kwargs": {"video": {"num_frames": -1}}}, "media_io_kwargs"),
    ("CVE-2025-32444 KV transfer", CHAT, {"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params"),
    ("CVE-2025-29783 KV transfer", COMPLETIONS, {"vllm_xargs": {"kv_transfer_params": "x"}}, "vllm_xargs"),
    ("CVE-2026-115912 shared memory", CHAT, {"multi_modal_data": {"image": {"handle": "psm_1"}}}, "multi_modal_data"),
    ("CVE-2025-46570 cache timing", CHAT, {"cache_salt": "another's"}, "cache_salt"),
    ("logprobs", CHAT, {"logprobs": True, "top_logprobs": 100_000}, "top_logprobs"),
    ("logprobs", COMPLETIONS, {"prompt_logprobs": -1}, "prompt_logprobs"),
    ("token ids", CHAT, {"stop_token_ids": [2**31]}, "stop_token_ids"),
    ("token ids", COMPLETIONS, {"logit_bias": {str(at): 1 for at in range(2000)}}, "logit_bias"),
    ("stop", CHAT, {"stop": ["x"] * 65}, "stop"),
    ("stop", MESSAGES, {"stop_sequences": ["x" * 2000]}, "stop_sequences"),
    ("priority", CHAT, {"priority": -5}, "priority"),
    ("priority", CHAT, {"priority": " " * 1001 + "-5"}, "priority"),
    ("priority", COMPLETIONS, {"priority": "-" + "0" * 1001 + "5"}, "priority"),
    ("token ids", CHAT, {"stop_token_ids": [" " * 101 + "-1"]}, "stop_token_ids"),
    ("another's id", CHAT, {"request_id": "chatcmpl-1"}, "request_id"),
    ("another's id", EMBEDDINGS, {"request_id": "1"}, "request_id"),
    ("another's image", CHAT, part(type="image_url", image_url={"url": IMAGE}, uuid="1"), "messages.content.uuid"),
    ("an unknown field", CHAT, {"no_such_field": 1}, "no_such_field"),
    ("an unknown field", CHAT, {"extra_body": {"chat_template": "x"}}, "extra_body"),
    ("an unknown field", "/v1/rerank", {"temperature": 1}, "temperature"),
    ("an unknown field", CHAT, {"stream_options": {"no_such_field": 1}}, "stream_options.no_such_field"),
]  # fmt: skip


def escaped(body: str, field: str) -> str:
    """The same JSON with an escape in every name on the way to `field`."""
    for name in field.split("."):
        body = body.replace(f'"{name}":', f'"\\u{ord(name[0]):04x}{name[1:]}":')
    return body


def written(path: str, fields: Fields, padding: int = 0) -> str:
    """A request as JSON, with `padding` bytes of text where a client may write as much."""
    base = dict(BASES[path]) | dict(fields)
    text = "x" * padding
    if "messages" in base:
        base["messages"] = [{"role": "user", "content": text}, *base["messages"]]
    else:
        base |= {name: text for name in ("prompt", "input", "query") if name in base}
    return json.dumps({"model": "alpha", **base})


@pytest.fixture(scope="module")
def served(start_worker: StartWorker) -> FakeWorker:
    """The worker of the gateway that is strict."""
    return start_worker("alpha")


@pytest.fixture(scope="module")
def strict(served: FakeWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the policy as it is shipped."""
    site = Site(tmp_path_factory.mktemp("strict"))
    site.declare("alpha", "alpha")
    site.attach({"alpha": [served]})
    started = Gateway(site, GATEWAY_FIELD_POLICY="strict")
    started.wait_for("alpha", "ready")
    yield started
    started.terminate()
    assert started.end() == (0, "")


@pytest.fixture
def own(served: FakeWorker) -> FakeWorker:
    served.forget()
    return served


def ask(gateway: Gateway, path: str, body: str) -> httpx.Response:
    return gateway.http.post(path, content=body.encode(), headers={"content-type": "application/json"})


CAUSES = [f"{at} {row[0]}" for at, row in enumerate(HARMFUL)]


@pytest.mark.parametrize(("cause", "path", "fields", "named"), HARMFUL, ids=CAUSES)
def test_what_harms_a_worker_is_refused(
    strict: Gateway, own: FakeWorker, cause: str, path: str, fields: Fields, named: str
) -> None:
    """In a small body, in a large one, and with escapes in its names: 400, the same words, nothing at the worker."""
    bodies = [written(path, fields, padding) for padding in (0, LARGE)]
    answers = [ask(strict, path, body) for one in bodies for body in (one, escaped(one, named))]
    assert [answer.status_code for answer in answers] == [400] * 4
    messages = {answer.json()["error"]["message"] for answer in answers}
    assert len(messages) == 1
    assert named in messages.pop()
    if path != MESSAGES:  # Anthropic's errors have no such members
        errors = [answer.json()["error"] for answer in answers]
        assert {(error["code"], error["param"]) for error in errors} == {("invalid_request", named)}
    assert own.seen.empty()


ADDRESSES: list[tuple[str, str, Fields]] = [
    ("CVE-2025-6242 SSRF", CHAT, part(type="image_url", image_url={"url": "http://169.254.169.254/"})),
    ("CVE-2026-24779 SSRF", CHAT, part(type="image_url", image_url={"url": "http://good.example\\@10.0.0.1/"})),
    ("CVE-2026-25960 SSRF", CHAT, part(type="image_url", image_url={"url": "HTTPS://good.example@127.1:8001/workers"})),
    ("CVE-2026-34753 SSRF", RESPONSES, {"input": [{"content": [{"type": "input_image", "image_url": "file:///etc"}]}]}),
    ("CVE-2026-54236 media", MESSAGES, {"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}}]}]}),
    ("CVE-2026-100650 media", CHAT, part(type="video_url", video_url={"url": "https://large.example/"})),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "path", "fields"), ADDRESSES, ids=[row[0] for row in ADDRESSES])
def test_a_worker_fetches_nothing_for_a_client(
    strict: Gateway, own: FakeWorker, cause: str, path: str, fields: Fields
) -> None:
    """Addresses of media are refused, wherever a worker would look for them."""
    for padding in (0, LARGE):
        body = {"model": "alpha", **BASES[path], **fields, "metadata": {"x": "x" * padding}}
        answer = ask(strict, path, json.dumps(body))
        assert answer.status_code == 400
        assert "data:" in answer.json()["error"]["message"]
    assert own.seen.empty()


HEADS: list[tuple[str, bytes, bytes, bytes]] = [  # the weakness, the method, lines of the head, how the answer begins
    ("CVE-2025-48956 huge headers", b"POST", b"x: " + b"x" * 100_000, b"HTTP/1.1 431 "),
    ("CVE-2025-48956 many headers", b"POST", b"\r\n".join(b"x%d: x" % at for at in range(500)), b"HTTP/1.1 431 "),
    ("PYSEC-2026-4325 methods", b"UNHEARD", b"x: x", b"HTTP/1.1 405 "),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "method", "lines", "answer"), HEADS, ids=[row[0] for row in HEADS])
def test_a_harmful_head_reaches_no_worker(
    strict: Gateway, own: FakeWorker, cause: str, method: bytes, lines: bytes, answer: bytes
) -> None:
    """Nor does anything of it become a label."""
    before = strict.ops.get("/metrics").text
    head = b"%b %b HTTP/1.1\r\nhost: a\r\n%b\r\ncontent-length: 0\r\n\r\n" % (method, CHAT.encode(), lines)
    with strict.connect(head) as connection:
        assert connection.recv(4096).startswith(answer)
    assert own.seen.empty()
    told = strict.ops.get("/metrics").text
    assert "UNHEARD" not in told
    assert abs(len(told.splitlines()) - len(before.splitlines())) < 60  # a route's first series, and no more


TWICE = [
    (CHAT, '"n":1,"n":1', "n"),
    (CHAT, '"max_tokens":1,"max_\\u0074okens":1', "max_tokens"),
    (CHAT, '"structured_outputs":{"regex":"a","regex":"a"}', "structured_outputs.regex"),
    (CHAT, '"structured_outputs":{"regex" :"a","reg\\u0065x":"a"}', "structured_outputs.regex"),
    (CHAT, '"response_format":{"type":"x","type":"x","schema":{"pattern":"a"}}', "response_format.type"),
    (CHAT, '"tools":[{"function":{"name":"f","parameters":{"pattern":"a","pattern":"a"}}}]', "tools.pattern"),
    (CHAT, '"chat_template_kwargs":{"a\\\\":":","b":1,"b":1}', "chat_template_kwargs.b"),
    (RESPONSES, '"text":{},"text":{}', "text"),
]


@pytest.mark.parametrize(("path", "members", "named"), TWICE)
def test_a_field_with_a_rule_may_stand_once(
    strict: Gateway, own: FakeWorker, path: str, members: str, named: str
) -> None:
    """A worker might take the other value than the one that was judged."""
    for padding in (0, LARGE):
        answer = ask(strict, path, written(path, {}, padding)[:-1] + f",{members}}}")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == named
        assert "twice" in answer.json()["error"]["message"]
    assert own.seen.empty()


CITY = {"type": "string", "pattern": "^[A-Z][a-z]+$"}
PARAMETERS = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
FUNCTION: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": PARAMETERS, "strict": True},
}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": DEEP, "strict": True}}
SEEN: Any = [{"role": "user", "content": [
    {"type": "text", "text": 'say "n": 1'}, {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}
]}]  # fmt: skip
CALLED: Any = [*HI, {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {
    "name": "weather", "arguments": '{"chat_template": "x", "n": 1, "n": 2}'}}]},
    {"role": "tool", "tool_call_id": "1", "content": '{"uuid": ":", "a": ":x"}'}]  # fmt: skip
EXTRA = {
    "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.05, "stop_token_ids": [1, 2], "ignore_eos": True,
    "min_tokens": 1, "skip_special_tokens": False, "prompt_logprobs": 1, "priority": 3, "thinking_token_budget": -1,
    "bad_words": ["x"], "return_token_ids": True, "include_reasoning": True, "truncate_prompt_tokens": -1,
    "chat_template_kwargs": {"enable_thinking": False, "custom": [{"a": {"b": 1}}]}, "use_beam_search": False,
}  # fmt: skip
CLIENTS: Mapping[str, Callable[[OpenAI], object]] = {
    "a chat": lambda one: one.chat.completions.create(
        model="alpha", messages=CALLED, temperature=0.2, top_p=0.9, n=2, seed=2**40, stop=["a", "b"], max_tokens=99,
        max_completion_tokens=99, presence_penalty=-2, frequency_penalty=2, logit_bias={"7": -100}, logprobs=True,
        top_logprobs=20, user="u", metadata={"a": "b"}, store=False, service_tier="auto", verbosity="low",
        reasoning_effort="high", parallel_tool_calls=True, tool_choice="auto", tools=[FUNCTION] * 100,
        prompt_cache_key="k", safety_identifier="s", prediction={"type": "content", "content": "x"},
    ),
    "a schema": lambda one: one.chat.completions.create(model="alpha", messages=HI, response_format=SCHEMA),
    "no schema": lambda one: one.chat.completions.create(
        model="alpha", messages=HI, response_format={"type": "json_object"}
    ),
    "an image": lambda one: one.chat.completions.create(model="alpha", messages=SEEN, max_tokens=5),
    "vLLM's own": lambda one: one.chat.completions.create(model="alpha", messages=HI, extra_body=EXTRA),
    "structured outputs": lambda one: one.chat.completions.create(
        model="alpha", messages=HI, extra_body={"structured_outputs": {"regex": r"\d{1,4}", "whitespace_pattern": " ?"}}
    ),
    "choices": lambda one: one.completions.create(
        model="alpha", prompt=[1, 2], echo=True, logprobs=5, best_of=2, suffix="x",
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    ),
    "old functions": lambda one: one.chat.completions.create(
        model="alpha", messages=HI, functions=[{"name": "f", "parameters": PARAMETERS}], function_call="auto"
    ),
    "embeddings": lambda one: one.embeddings.create(model="alpha", input=["a"], dimensions=8, encoding_format="float"),
    "a response": lambda one: one.responses.create(
        model="alpha", instructions="x", max_output_tokens=9, reasoning={"effort": "low"}, store=False,
        input=[{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE, "detail": "low"}]}],
        truncation="auto", top_logprobs=2, include=["reasoning.encrypted_content"],
        text={"format": {"type": "json_schema", "name": "x", "schema": PARAMETERS}},
        tools=[{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}], tool_choice="auto",
        background=False, max_tool_calls=3, metadata={"a": "b"}, parallel_tool_calls=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENTS)
def test_what_openais_client_sends_is_taken(strict: Gateway, own: FakeWorker, name: str) -> None:
    """As its own builders write it."""
    CLIENTS[name](strict.openai)
    assert json.loads(own.next().body)["model"] == "alpha"


CLAUDE: Fields = {
    "max_tokens": 32_000,
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        *HI,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"},
                                          {"type": "tool_use", "id": "1", "name": "weather", "input": {"uuid": "1"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]}]},
    ],
    "tools": [{"name": "weather", "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 16_000},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": PARAMETERS}},
    "metadata": {"user_id": "u"}, "temperature": 1, "top_k": 5, "top_p": 0.9, "stop_sequences": ["x"],
    "service_tier": "auto", "stream": True,
}  # fmt: skip
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ORDINARY = (
    f"{UUID}/{UUID}", r"(\d{1,3}\.){3}\d{1,3}", r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z", r".{0,8000}",
    r"([a-z0-9-]{1,63}\.){1,8}[a-z]{2,63}", r"\u{10FFFF}\x{99999}\p{L}{2,}a{b}{", r"(a{20} ){20}",
)  # fmt: skip
COUNTED = ("messages", "system", "tools", "tool_choice", "thinking")
RIGHT: list[tuple[str, Fields]] = [
    (MESSAGES, CLAUDE),
    ("/v1/messages/count_tokens", {name: CLAUDE[name] for name in COUNTED}),
    (RESPONSES, {"input": "hi", "stream": True, "chat_template_kwargs": {"enable_thinking": True}}),
    ("/v1/rerank", {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": True,
                    "max_tokens_per_doc": 100}),
    ("/v1/score", {"text_1": "a", "text_2": ["b"], "truncate_prompt_tokens": 5}),
    ("/v1/score", {"queries": "a", "documents": ["b"], "instruction": "x"}),
    ("/v1/pooling", {"input": "a", "task": "token_embed", "encoding_format": "base64", "embed_dtype": "float16"}),
    ("/v1/classify", {"input": ["a"], "use_activation": True}),
    (EMBEDDINGS, {"messages": SEEN, "encoding_format": "base64", "dimensions": 64, "user": "u"}),
    ("/v1/tokenize", {"prompt": "a", "add_special_tokens": False, "return_token_strs": True}),
    ("/v1/tokenize", {"messages": HI, "tools": [FUNCTION], "add_generation_prompt": True}),
    ("/v1/detokenize", {"tokens": [1, 2, 3]}),
    (CHAT, {"messages": HI, "n": None, "max_tokens": None, "stop": None, "tools": None, "response_format": None}),
    (CHAT, {"messages": HI, "stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
    (CHAT, {"messages": HI, "chat_template": None, "no_such_field": None, "x" * 200: None, "request_id": None}),
    (CHAT, part(type="image_url", image_url={"url": IMAGE}, uuid=None, image_embeds=None)),
    *((CHAT, {"messages": HI, "structured_outputs": {"regex": text}}) for text in ORDINARY),
    (CHAT, {"messages": HI, "structured_outputs": {"json": json.dumps(PARAMETERS), "grammar": "root ::= [0-9]{4}"}}),
    (CHAT, {"messages": HI, "structured_outputs": {"json": "true"}}),
    (CHAT, {"messages": HI, "chat_template_kwargs": {"a": [[]] * 3000}}),
    (CHAT, tool({"properties": {"maxItems": {"maxLength": 1_000_000}}}) | {"messages": HI}),
    (CHAT, {"messages": HI, "structured_outputs": {"regex": "a", "no_such_field": None}}),
    (CHAT, {"messages": HI, "stop": ["x"] * 64, "thinking": {"type": "disabled"}, "enable_thinking": False}),
    (RESPONSES, {"input": "hi", "stream": True, "client_metadata": {"x-codex-installation-id": "1"},
                 "stream_options": {"reasoning_summary_delivery": "sequential_cutoff"}}),
    (CHAT, tool({"properties": {"chat_template": {}, "n": {}, "uuid": {}, "pattern": {"type": "string"}}})
     | {"messages": HI}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields"), RIGHT)
def test_what_is_right_is_taken(strict: Gateway, own: FakeWorker, path: str, fields: Fields) -> None:
    """Small or large, it reaches the worker."""
    for padding in (0, LARGE):
        with suppress(httpx.RemoteProtocolError):  # the fake worker's answer is no stream
            ask(strict, path, json.dumps({"model": "alpha", **fields}) + " " * padding)
        seen = json.loads(own.next().body)
        assert {**seen, "stream_options": None} == {"model": "alpha", **fields, "stream_options": None}


def test_a_recording_with_all_that_clients_send(strict: Gateway, own: FakeWorker) -> None:
    """By OpenAI's client, which writes lists and objects as fields of their own."""
    strict.openai.audio.transcriptions.create(
        model="alpha", file=("a; name=b.wav", b"RIFF"), language="en", prompt="x", response_format="verbose_json",
        temperature=0.2, timestamp_granularities=["word", "segment"], include=["logprobs"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
        extra_body={"hotwords": "x", "top_k": 5, "seed": 1, "max_completion_tokens": 100},
    )  # fmt: skip
    assert b"RIFF" in own.next().body


@pytest.mark.parametrize(
    ("name", "values", "word"),
    [
        ("n", ["1000000"], "from 0 to 128"), ("n", ["1", "1"], "twice"), ("repetition_penalty", ["nan"], "from 0.01"),
        ("vllm_xargs", ["{}"], "vllm_xargs"), ("no_such_field", ["x"], "GATEWAY_ALLOWED_FIELDS=no_such_field"),
        ("max_completion_tokens", ["9" * 400], "from 0 to"), ("n", [" " * 9000 + "1000000"], "longer than 8192"),
        ("n", [" " * 2000 + "1000000"], "from 0 to 128"), ("request_id", ["1"], "X-Request-Id"),
    ],
)  # fmt: skip
def test_a_form_has_the_same_rules(
    strict: Gateway, own: FakeWorker, name: str, values: list[str], word: str
) -> None:
    """Fields of a multipart form, before a small file and behind a large one."""
    for size in (4, LARGE * 10):
        parts: list[tuple[str, Any]] = [("model", (None, "alpha")), ("file", ("a.wav", b"x" * size))]
        answer = strict.http.post(SPEECH, files=parts + [(name, (None, value)) for value in values])
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]
    assert own.seen.empty()


def test_a_form_in_another_charset_is_refused(strict: Gateway, own: FakeWorker) -> None:
    """A worker would read names and values in it that the gateway does not see."""
    form = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nalpha\r\n--B--\r\n'
    for kind, status in (("boundary=B; charset=utf-7", 400), ("boundary=B; charset=utf-8", 200)):
        headers = {"content-type": f"multipart/form-data; {kind}"}
        assert strict.http.post(SPEECH, content=form, headers=headers).status_code == status
    assert own.next().body == form
    assert own.seen.empty()


TWICE_OR_NULL = [
    '"chat_template":"x","chat_template":null',
    '"uuid":null,"uuid":1',
    '"no_such":1,"no_such":null',
]


@pytest.mark.parametrize("members", TWICE_OR_NULL)
def test_null_hides_no_other_value(strict: Gateway, own: FakeWorker, members: str) -> None:
    """A name that stands twice, once with null, is judged by the other."""
    for padding in (0, LARGE):
        assert ask(strict, CHAT, written(CHAT, {}, padding)[:-1] + f",{members}}}").status_code == 400
    assert own.seen.empty()


def test_permissive_takes_what_is_unknown_and_refuses_what_harms(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """GATEWAY_FIELD_POLICY=permissive."""
    gateway = start_gateway(GATEWAY_FIELD_POLICY="permissive")
    own_worker.forget()
    for padding in (0, LARGE):
        body = written(CHAT, {"no_such_field": 1, "stream_options": {"no_such": 1}, "stream": False}, padding)
        assert ask(gateway, CHAT, body).status_code == 200
        assert own_worker.next().body == body.encode()
        for fields in (
            {"chat_template": "x"},
            {"n": 10**6},
            {"request_id": "1"},
            {"chat_template_kwargs": {"tokenize": 1}},
        ):
            assert ask(gateway, CHAT, written(CHAT, fields, padding)).status_code == 400
    assert own_worker.seen.empty()


def test_an_operator_allows_fields(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """GATEWAY_ALLOWED_FIELDS, by name or path: unknown ones, refused ones, and values beyond their range."""
    paths = "structured_outputs.regex chat_template_kwargs.tokenize messages.content.uuid"
    allowed = f"no_such_field chat_template n {paths}"
    gateway = start_gateway(GATEWAY_FIELD_POLICY="strict", GATEWAY_ALLOWED_FIELDS=allowed)
    own_worker.forget()
    fields = {
        "no_such_field": 1, "chat_template": "x", "n": 10**6, "structured_outputs": {"regex": LONG},
        "chat_template_kwargs": {"tokenize": True}, **part(type="image_url", image_url={"url": IMAGE}, uuid="1"),
    }  # fmt: skip
    for padding in (0, LARGE):
        assert ask(gateway, CHAT, written(CHAT, fields, padding)).status_code == 200
        assert json.loads(own_worker.next().body)["n"] == 10**6
        other = {"structured_outputs": {"regex": "a", "_backend": "x"}}
        assert ask(gateway, CHAT, written(CHAT, other, padding)).status_code == 400


def test_a_method_of_anybodys_making_is_refused(strict: Gateway, own: FakeWorker) -> None:
    """PYSEC-2026-4325: a worker counted requests by their method, whatever it was called."""
    for method in ("GET" * 2000, "PROPFIND"):
        answer = strict.http.request(method, CHAT, json={"model": "alpha", **BASES[CHAT]})
        assert 400 <= answer.status_code < 500
    assert "PROPFIND" not in strict.ops.get("/metrics").text
    assert own.seen.empty()
