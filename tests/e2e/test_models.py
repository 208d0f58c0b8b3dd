"""Each model's real service with its twin: what runs, and what an OpenAI client gets. MODELS chooses slugs, or all."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest
import yaml
from openai import OpenAI

from gateway.config.catalog import parse_env
from tests.e2e.conftest import SLUG
from tests.e2e.stack import PROJECT, ROOT, Stack, asking, compose_files, wait_for
from tests.twins.dialogues import Turn
from tests.twins.recite import heard
from tests.twins.repertoire import REPERTOIRES, Repertoire

TWINS = {
    "qwen3-0p6b-cpu": "qwen3",
    "step3p5-fp8": "step",
    "step3p5-bf16-mtp": "step",
    "step3p7-flash": "step",
    "kimi-k2p5": "kimi",
    "deepseek-r1-distill-qwen-7b": "r1",
}
CHOSEN = os.environ.get("MODELS", "").replace(",", " ").split() or [SLUG]
ALL = sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))
POOL, POOLED = ("step3p5-fp8", "step3p5-bf16-mtp"), "step3p5-flash"
SLUGS = sorted((slug for slug in ALL if slug in CHOSEN or "all" in CHOSEN), key=POOL[-1].__eq__)
A_TOOL = {"type": "function", "function": {"name": "any", "parameters": {"type": "object", "properties": {}}}}
every_model = pytest.mark.skipif(len(SLUGS) < len(ALL), reason="asks for MODELS=all")


if unknown := {*CHOSEN} - {*ALL, "all"}:
    raise pytest.UsageError(f"MODELS: {', '.join(unknown)} is no slug; there are: all, {', '.join(ALL)}")


@dataclass(frozen=True)
class Served:
    """A slug that serves, and what its twin recites."""

    slug: str
    names: list[str]
    gpus: int
    options: dict[str, Any]
    twin: str

    @property
    def repertoire(self) -> Repertoire:
        return REPERTOIRES[self.twin]

    @property
    def calls(self) -> dict[str, Turn]:
        """The turns that end in a call."""
        return {name: turn for name, turn in self.repertoire.turns.items() if turn.answer.tool_calls}

    @property
    def first_rounds(self) -> dict[str, Turn]:
        """The turns that answer no tool's result."""
        return {
            name: turn for name, turn in self.repertoire.turns.items() if turn.messages[-1]["role"] != "tool"
        }


def facts(slug: str) -> Served:
    recipe = ROOT / "docker" / slug
    env = parse_env((recipe / "model.env").read_text(), recipe / "model.env")
    options = yaml.safe_load((recipe / "serve.yaml").read_text())
    return Served(slug, env["SERVED_MODEL_NAMES"].split(), int(env.get("GPUS", 0)), options, TWINS[slug])


def start(stack: Stack, *slugs: str) -> None:
    """Brings slugs up as an operator does, and waits until the gateway has them."""
    profiles = [word for slug in slugs for word in ("--profile", slug)]
    stack.compose(*profiles, "build", "--quiet")
    stack.compose("up", "-d", "--wait", "--wait-timeout", "600", *slugs)
    for slug in slugs:
        wait_for(f"{slug} ready", lambda slug=slug: stack.slug_status(slug)["state"] == "ready" or None, 60)


def stop(stack: Stack, *slugs: str) -> None:
    """Until the gateway has noticed; the default slug stays."""
    models = [slug for slug in slugs if slug != SLUG]
    if models:
        stack.compose("stop", *models)
    for slug in models:
        wait_for(f"{slug} gone", lambda slug=slug: stack.slug_status(slug)["state"] != "ready" or None, 60)


@pytest.fixture(scope="module")
def tidy(stack: Stack) -> Iterator[None]:
    """Afterwards the default slug is alone, for the tests of other modules."""
    yield
    stop(stack, *POOL)


@pytest.fixture(scope="module", params=SLUGS)
def served(request: pytest.FixtureRequest, stack: Stack, tidy: None) -> Iterator[Served]:
    """Each alone beside the default slug; the last stays for the pool's tests."""
    try:
        start(stack, request.param)
        yield facts(request.param)
    finally:
        if request.param != POOL[-1]:
            stop(stack, request.param)


def run(*words: str) -> str:
    """What one of the repository's programs prints; it must end well."""
    own = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": compose_files()}
    done = subprocess.run(words, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answering(turn: Turn, call_id: str) -> Turn:
    """A second round for the call that the server has named `call_id`."""
    named = json.loads(json.dumps(turn.messages))
    for message in named:
        for call in message.get("tool_calls", []):
            call["id"] = call_id
        if message["role"] == "tool":
            message["tool_call_id"] = call_id
    return replace(turn, messages=tuple(named))


def chat(client: OpenAI, model: str, turn: Turn, **more: object) -> Any:
    """`create` of the client, whose overloads do not know a dictionary's words."""
    create: Any = client.chat.completions.create
    return create(model=model, temperature=0, **turn.request(), **more)


def both_names(part: Any) -> str:
    """The reasoning of a message or a delta, the same under both of its names."""
    assert getattr(part, "reasoning", None) == getattr(part, "reasoning_content", None)
    return getattr(part, "reasoning", None) or ""


def test_what_runs_is_what_the_directory_says(served: Served, stack: Stack) -> None:
    """The running vLLM has the twin's architecture, serve.yaml's parsers and model.env's names, in this order."""
    log = stack.logs(served.slug)
    config = json.loads((ROOT / "tests/twins" / served.twin / "config.json").read_text())
    assert f"Resolved architecture: {config['architectures'][0]}" in log
    for option in ("reasoning-parser", "tool-call-parser"):
        if option in served.options:
            assert f"'{option.replace('-', '_')}': '{served.options[option]}'" in log
    status, models = stack.run_in(served.slug, asking(8000, "/v1/models"))
    assert status == 0, models
    assert [model["id"] for model in json.loads(models)["data"]] == served.names


def claimed(stack: Stack, slug: str) -> set[str]:
    """The GPUs of a slug's last start, by its launcher's log."""
    lines = [json.loads(line) for line in stack.logs(slug).splitlines() if '"event": "gpus"' in line]
    return set(lines[-1]["uuids"]) if lines else set()


def test_the_launcher_has_claimed_the_gpus(served: Served, stack: Stack) -> None:
    """As many as the slug needs, of those that nvidia-smi names; none for the CPU's."""
    assert len(claimed(stack, served.slug)) == served.gpus


def test_chat(served: Served, client: OpenAI) -> None:
    """Every first round: content, calls and, apart from them, the reasoning under both names."""
    for name, turn in served.first_rounds.items():
        choice = chat(client, served.names[0], turn).choices[0]
        calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
        answer = heard(choice.message.content, both_names(choice.message), calls)
        assert (answer, choice.finish_reason) == (turn.answer, turn.answer.finish_reason), name


def test_stream(served: Served, client: OpenAI) -> None:
    """The same in pieces, under the last of the served names."""
    for name, turn in served.first_rounds.items():
        chunks = list(chat(client, served.names[-1], turn, stream=True))
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        pieces = [piece.function for delta in deltas for piece in delta.tool_calls or []]
        call = ("".join(p.name or "" for p in pieces), "".join(p.arguments or "" for p in pieces))
        content = "".join(delta.content or "" for delta in deltas)
        answer = heard(content, "".join(map(both_names, deltas)), [call] if pieces else [])
        assert len(chunks) > 2, name
        assert answer == turn.answer, name


def test_tool_call_in_two_rounds(served: Served, client: OpenAI) -> None:
    """A model calls the tool and answers from its result; one without a parser for calls says so at once."""
    if "tool-call-parser" not in served.options:
        asked = next(iter(served.first_rounds.values()))
        with pytest.raises(openai.BadRequestError, match="tool"):
            chat(client, served.names[0], replace(asked, tools=(A_TOOL,)))
        return
    assert served.calls
    for name, turn in served.calls.items():
        call = chat(client, served.names[0], turn).choices[0].message.tool_calls[0]
        second = answering(served.repertoire.turns[f"{name.removesuffix('_call')}_answer"], call.id)
        message = chat(client, served.names[0], second).choices[0].message
        assert heard(message.content, both_names(message), []) == second.answer, name


def test_completion(served: Served, client: OpenAI) -> None:
    """Plain text goes on as the twin was taught."""
    for text in served.repertoire.texts:
        made = client.completions.create(
            model=served.names[0], prompt=text.given, max_tokens=512, temperature=0
        ).choices[0]
        assert (made.text, made.finish_reason) == (text.said, "stop")


@pytest.fixture(scope="module")
def pool(stack: Stack, tidy: None) -> Served:
    """Two slugs that serve one name; the second drafts."""
    start(stack, *POOL)
    return facts(POOL[1])


def counter(stack: Stack, slug: str, metric: str) -> float:
    """The sum of a counter's series, from the worker itself."""
    status, text = stack.run_in(slug, asking(8000, "/metrics"))
    assert status == 0, text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(metric))


@every_model
def test_two_slugs_of_one_name_are_one_pool(pool: Served, client: OpenAI, stack: Stack) -> None:
    """Requests for the name reach both, each answers alike, and each slug's own name reaches it alone."""
    turn = pool.first_rounds["number_42"]
    served = "vllm:request_success_total"
    before = {slug: counter(stack, slug, served) for slug in POOL}

    def reached() -> dict[str, float] | None:
        """How many requests each has had, once both have: one that has just started gets its share by and by."""
        for _ in range(6):
            assert chat(client, POOLED, turn).choices[0].message.content.strip() == turn.answer.content
        found = {slug: counter(stack, slug, served) - before[slug] for slug in POOL}
        return found if all(found.values()) else None

    shared = wait_for("both slugs reached", reached, 90)
    chat(client, POOL[0], turn)
    alone = {slug: counter(stack, slug, served) - before[slug] - shared[slug] for slug in POOL}
    assert alone == {POOL[0]: 1, POOL[1]: 0}


@every_model
def test_two_slugs_have_their_own_gpus(pool: Served, stack: Stack) -> None:
    """No GPU is claimed twice."""
    claims = [claimed(stack, slug) for slug in POOL]
    assert [len(claim) for claim in claims] == [8, 8]
    assert not claims[0] & claims[1]


@every_model
def test_the_draft_is_confirmed(pool: Served, client: OpenAI, stack: Stack) -> None:
    """The model accepts what its draft layer guesses."""
    accepted = "vllm:spec_decode_num_accepted_tokens_total"
    before = counter(stack, pool.slug, accepted)  # the launcher's own warming among it
    chat(client, pool.slug, pool.first_rounds["number_42"])
    assert counter(stack, pool.slug, accepted) > before


@every_model
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="is for hosts without GPUs")
def test_without_gpus_a_start_ends_at_the_check(stack: Stack) -> None:
    """The real service, not its twin: one sentence, no weights job has run, no worker started."""
    slug = POOL[0]
    stack.compose("rm", "--force", "--stop", slug, f"{slug}-weights", f"{slug}-check")
    files = compose_files().removesuffix(":tests/e2e/compose.twins.yaml")
    done = stack.compose("up", "-d", "--no-build", slug, check=False, COMPOSE_FILE=files)
    assert done.returncode != 0
    assert 'could not select device driver "nvidia"' in done.stderr.splitlines()[-1]
    services = (f"{slug}-check", f"{slug}-weights", slug)
    assert [stack.container(name).status for name in services] == ["created"] * 3
    stack.compose("rm", "--force", "--stop", *services)


@every_model
def test_offline_and_verify(stack: Stack) -> None:
    """vLLM's LLM class and Transformers, each without a server, say on R1's weights what the twin was taught."""
    slug = "deepseek-r1-distill-qwen-7b"
    stack.compose("up", "-d", "--wait", "hub")
    stack.compose("up", f"{slug}-weights")
    turn = facts(slug).first_rounds["deep_learning"]
    question = str(turn.messages[0]["content"])
    offline = ["examples/offline.py", "--serve-config", "/twin/offline.yaml", question]
    answer = run("scripts/in-worker", slug, *offline)
    assert f"Reasoning: {turn.answer.reasoning}\nAnswer: {turn.answer.content}" in answer
    assert run("scripts/verify", slug).startswith(f"verify: {slug}: Qwen2ForCausalLM, ")
