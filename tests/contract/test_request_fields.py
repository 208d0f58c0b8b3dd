"""The field policy's data: documented, complete for OpenAI's clients, and each line with its reason."""

from __future__ import annotations

import re

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.audio import transcription_create_params, translation_create_params
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from gateway.api.routes import TABLE, Kind
from gateway.body.members import PARTS
from gateway.config.field_policy import FieldPolicy, Mode
from gateway.config.field_rules import Object
from gateway.config.request_fields import REFUSED, ROUTE_FIELDS, RULES
from tests.contract.field_tables import PAGE, written

SENT = {
    "chat_completions": chat_create_params.CompletionCreateParamsBase,
    "completions": completion_create_params.CompletionCreateParamsBase,
    "embeddings": embedding_create_params.EmbeddingCreateParams,
    "responses": response_create_params.ResponseCreateParamsBase,
    "transcriptions": transcription_create_params.TranscriptionCreateParamsBase,
    "translations": translation_create_params.TranslationCreateParams,
}

WEAKNESS = r"(?:CVE|PYSEC)-[0-9]+-[0-9]+"


def test_the_page_shows_the_data() -> None:
    """docs/request-fields.md has these tables; `python -m tests.contract.field_tables` writes them."""
    assert PAGE.read_text() == written(PAGE.read_text())


def test_every_route_with_a_body_has_fields() -> None:
    """And no other: a route that is new gets a row."""
    assert {route.name for route in TABLE if route.kind is not Kind.STORED} == ROUTE_FIELDS.keys()
    assert {route.name for route in TABLE if route.kind is Kind.JSON} == PARTS.keys()


@pytest.mark.parametrize("route", SENT)
def test_all_that_openais_client_can_send_is_known(route: str) -> None:
    """Each parameter of its builders, and `stream`, is a field of the route."""
    streams = next(one.streams for one in TABLE if one.name == route)
    sent = SENT[route].__annotations__.keys() | ({"stream"} if streams else set())
    assert sent - ROUTE_FIELDS[route] == set()


def test_all_stream_options_of_openais_client_are_known() -> None:
    """They are a closed object."""
    rule = RULES["stream_options"]
    assert isinstance(rule, Object)
    assert ChatCompletionStreamOptionsParam.__annotations__.keys() <= rule.inner.keys()


def test_what_is_refused_is_no_field_of_a_route() -> None:
    """One of both."""
    assert [route for route, names in ROUTE_FIELDS.items() if names & REFUSED.keys()] == []


def test_every_rule_is_for_a_field_that_some_route_has() -> None:
    """A rule that is spelt wrong would hold for nothing; nor would one for a name with digits, in a small body."""
    assert [name for name in RULES if not re.fullmatch("[A-Za-z_]+", name)] == []
    assert RULES.keys() <= frozenset().union(*ROUTE_FIELDS.values())


def test_every_weakness_that_a_line_answers_is_one_that_is_sent() -> None:
    """tests/integration/gateway/body/test_request_fields.py has a row for each CVE of the tables."""
    sent = (PAGE.parents[1] / "tests/integration/gateway/body/test_request_fields.py").read_text()
    named = set(re.findall(WEAKNESS, PAGE.read_text()))
    assert {one for one in named if one not in sent} == set()


def test_every_vulnerability_that_arrives_in_a_request_is_sent() -> None:
    """Those of the second column of docs/security.md's table, and no id stands in both columns."""
    root = PAGE.parents[1]
    sent = (root / "tests/integration/gateway/body/test_request_fields.py").read_text()
    section = (
        (root / "docs/security.md")
        .read_text()
        .partition("## vLLM's vulnerabilities")[2]
        .partition("\n## ")[0]
    )
    rows = [row.split("|")[2:4] for row in section.splitlines() if row.startswith("| ")][1:]
    arriving, others = (set(re.findall(WEAKNESS, " ".join(column))) for column in zip(*rows, strict=True))
    assert {one for one in arriving if one not in sent} == set()
    assert arriving & others == set()
    assert set(re.findall(WEAKNESS, PAGE.read_text())) <= arriving


def test_all_that_harms_is_refused_in_both_modes() -> None:
    """The permissive one differs only in what it does not know."""
    for mode in Mode:
        policy = FieldPolicy(mode).of("chat_completions")
        assert [name for name in REFUSED if policy.takes(name)] == []
        assert policy.takes("no_such_field") is (mode is Mode.PERMISSIVE)
