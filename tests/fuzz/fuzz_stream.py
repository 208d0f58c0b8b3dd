"""A stream's reading: bytes stay as they are where nothing is to be changed, and the short way changes nothing."""

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.proxy.response_filter import (
        KEY,
        USAGE_KEY,
        DocumentFilter,
        Edits,
        ReasoningNames,
        StreamFilter,
    )

from tests.fuzz.harness import main, pieces

ENDS = (b"data: [DONE]", b"event: message_stop")
EDITS = (
    Edits(),
    Edits(hide_usage=True),
    Edits(ReasoningNames.BOTH),
    Edits(ReasoningNames.NONE, True),
    Edits(ReasoningNames.REASONING_CONTENT),
)
USAGE = b'"usage":{"prompt_tokens":1,"completion_tokens":2,"d":{"e":1}}'
SEEDS = (
    b'\x02\x05\x40data: {"choices":[{"delta":{"reasoning":"x\\"y"}}]}\n\ndata: [DONE]\n\n',
    b'\x01\x20data: {"a":1}\n\ndata: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\r\n\r\n",
    b"\x00event: message_stop\ndata: {}\n\n: ping\r\n\r\n",
)


def target(data: bytes) -> None:
    parts = pieces(data)
    whole = b"".join(parts)
    assert joined(StreamFilter(ENDS, Edits()), parts) == whole
    for edits in EDITS:
        if KEY not in whole and USAGE_KEY not in whole:
            assert joined(StreamFilter(ENDS, edits), parts) == whole
            assert joined(DocumentFilter(edits), parts) == whole
        compare(edits, parts)
    at_once, in_pieces = StreamFilter(ENDS, Edits()), StreamFilter(ENDS, Edits())
    joined(at_once, [whole])
    joined(in_pieces, parts)
    assert in_pieces.whole or not at_once.whole


def joined(reading: StreamFilter | DocumentFilter, parts: list[bytes]) -> bytes:
    return b"".join([*(reading.feed(part) for part in parts), reading.rest()])


def compare(edits: Edits, parts: list[bytes]) -> None:
    """Chunks that may pass with their frame leave all as if they had been fed."""
    fast, slow = StreamFilter(ENDS, edits), StreamFilter(ENDS, edits)
    passed, fed = [], []
    for part in parts:
        framed = part and fast.pass_on(b"%x\r\n%b\r\n" % (len(part), part))
        passed.append(framed[framed.index(b"\r\n") + 2 : -2] if framed else fast.feed(part))
        fed.append(slow.feed(part))
    assert b"".join(passed) + fast.rest() == b"".join(fed) + slow.rest()
    assert (fast.whole, fast.tokens) == (slow.whole, slow.tokens)


if __name__ == "__main__":
    main(target, SEEDS)
