"""What the mock worker says: of the sizes peers were measured with, and comparable where a gateway rewrites it."""

import json

import pytest

from bench import answers
from bench.answers import LONG, MODEL, THOUGHTS
from gateway.proxy.response_filter import Edits, ReasoningNames


def test_the_loads_are_of_the_sizes_that_peers_were_measured_with() -> None:
    """A 1.3 KB chat body, a 560-byte answer, a stream of 100 chunks and [DONE]."""
    assert 1250 <= len(answers.chat_request(MODEL)) <= 1350
    assert 540 <= len(answers.completion()) <= 580
    assert answers.stream_body(LONG) == b"".join(answers.events(LONG)) + answers.DONE
    assert len(answers.events(LONG)) == 100


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_long_request_is_as_long_as_asked(size: int) -> None:
    """To the byte, and valid JSON."""
    body = answers.long_request(MODEL, size)
    assert len(body) == size
    assert json.loads(body)["model"] == MODEL


def test_an_image_comes_as_a_data_uri() -> None:
    """Of ten megabytes, within a percent, as base64."""
    body = answers.image_request(MODEL, 10_000_000)
    url = json.loads(body)["messages"][1]["content"][1]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    assert len(body) == pytest.approx(10_000_000, rel=0.01)


def test_what_is_expected_of_the_gateway_is_what_its_rule_makes() -> None:
    """The reasoner's stream under both names, worked out here and by the gateway's own module."""
    body = answers.stream_body(THOUGHTS)
    assert body.count(b'"reasoning":') == 100
    assert answers.with_both_names(body) == Edits(ReasoningNames.BOTH).apply(body) != body


@pytest.mark.parametrize("body", [answers.completion(), answers.stream_body(LONG)])
def test_the_text_survives_another_wording(body: bytes) -> None:
    """A gateway that adds fields and blanks says the same; one that loses a word or the end does not."""
    text = answers.text_of(body)
    assert answers.text_of(body.replace(b'"index":0', b'"index": 0, "more": null')) == text
    assert answers.text_of(body.replace(b"gateway", b"", 1)) != text


def test_a_stream_without_its_end_has_no_text() -> None:
    """[DONE] lost is an answer lost."""
    with pytest.raises(ValueError, match="without its end"):
        answers.text_of(answers.stream_body(LONG).removesuffix(answers.DONE))
