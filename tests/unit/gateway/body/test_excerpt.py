"""What the audit log keeps of a body: text as it was sent, no media, and not more than its bound."""

import base64
import json
import time

import pytest

from gateway.body.excerpt import CUT, MAX_BYTES, excerpt_of

IMAGE = base64.b64encode(bytes(range(256)) * 30).decode()


def test_text_is_kept_as_it_was_sent() -> None:
    """Its spaces and escapes too."""
    body = '{"model" : "m", "messages":[{"role":"user","content":"Grüß \\u00dc data: \\"base64\\""}]}'
    assert excerpt_of(body.encode()) == body


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
    ],
)
def test_media_are_replaced_by_their_size(part: dict[str, object]) -> None:
    """In OpenAI's forms and in Anthropic's; text before and after stays."""
    content = [{"text": "before"}, part, {"text": "behind"}, part]
    kept = excerpt_of(json.dumps({"content": content}).encode())
    assert json.loads(kept)["content"][::2] == content[::2]
    assert IMAGE[:64] not in kept
    assert kept.count("<7680 bytes of media>") == 2
    assert excerpt_of(json.dumps(content, separators=(",", ":")).encode()).count("of media>") == 2


def test_a_short_member_data_is_text() -> None:
    """A tool's result may have one."""
    body = '{"data": "hello", "b": {"data": "%s"}}' % ("two words " * 20)
    assert excerpt_of(body.encode()) == body


def test_what_is_kept_is_bounded() -> None:
    """And says so; text behind large media is found."""
    long = excerpt_of(b"x" * (MAX_BYTES + 1))
    assert long == "x" * MAX_BYTES + CUT
    media = b'{"a":"data:image/png;base64,' + b"A" * 30_000_000 + b'","b":"behind"}'
    assert excerpt_of(media).endswith('<22500000 bytes of media>","b":"behind"}')


def test_the_worst_body_costs_little() -> None:
    """However many marks it has, and if the last of its media has no end."""
    bodies = [
        b";base64," * 4_000_000,
        b'"data":"' * 4_000_000,
        b'";base64,' * 4_000_000,
        b'"data"       ' * 2_000_000,
    ]
    started = time.process_time()
    for body in bodies:
        assert len(excerpt_of(body)) < 10 * MAX_BYTES
    assert time.process_time() - started < 5


def test_bytes_that_are_no_text_are_replaced() -> None:
    """A line of the log is UTF-8."""
    assert excerpt_of(b'{"a":"\xff"}') == '{"a":"�"}'


@pytest.mark.parametrize(
    "text", [";base64,how to", ";base64," + "A" * 64 + " how to", "data:x;base64," + IMAGE + " how to"]
)
def test_no_text_is_hidden_as_media(text: str) -> None:
    """Whoever writes it behind the mark of media could else ask unseen."""
    body = json.dumps({"messages": [{"content": text}, {"content": f"data:a;base64,{IMAGE}"}]})
    assert "how to" in excerpt_of(body.encode())
    assert "<7680 bytes of media>" in excerpt_of(body.encode())


@pytest.mark.parametrize(
    "part", [b';base64,%b"', b";base64,%b", b";base64,%b ", b';base64,%b "', b'"data":"%b"', b'"data":"%b ']
)
def test_many_media_cost_no_more(part: bytes) -> None:
    """The event loop waits for it."""
    for size in (64, 6000):
        best, body = 1.0, part % (b"A" * size) * ((1 << 25) // size)
        for _ in range(5):
            began = time.process_time()
            excerpt_of(body)
            best = min(best, time.process_time() - began)
        assert best < 0.02
        assert len(excerpt_of(body)) < 2 * MAX_BYTES
