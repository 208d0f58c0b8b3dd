"""Any body is read or refused as the client's fault; what is sent is what came, but for what is put in between."""

import gzip
import json
import zlib
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.api.errors import InvalidRequest, RequestTooLarge
    from gateway.api.routes import TABLE, Kind, Route
    from gateway.body.content_coding import DECODERS
    from gateway.body.reader import ASK_FOR_USAGE, BodyReader, ParsedBody, remote_media
    from gateway.config.field_policy import FieldPolicy, Mode
    from gateway.config.model_options import Alias

from tests.fuzz.harness import main
from tests.reading import decoded

ALIASES = {"fast": Alias(model="m", force={"temperature": 0}, default={"top_p": 1})}
MAX = 1 << 20
POLICIES = (FieldPolicy(Mode.STRICT, ["x"]), FieldPolicy(Mode.PERMISSIVE))
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
SEEDS = (
    b'\x00application/json\n{"model":"m","messages":[{"role":"user","content":"x"}]}',
    b'\x00application/json\n{"model":"m","stream":true,"stream_options":{"include_usage":false}}',
    b'\x00application/json\n{"model":"fast","stream":true,"top_p":null}',
    b'\x01application/json\n{"a":[{"model":1}],"model":"m","\\u006dodel":"n","stream":true}',
    b'\x00application/json\n{"model":"m","messages":[{"content":[{"image_url":{"url":"http://x/y"}}]}]}',
    b"\x0emultipart/form-data; boundary=b\n" + FORM,
    b"\x0fmultipart/form-data; boundary*0*=utf-8''b\n" + FORM,
    b"\x10gzip\n" + gzip.compress(FORM),
    b"\x10deflate\n" + zlib.compress(FORM),
)


NAMES = (
    "model",
    "mod\\u0065l",
    "stream",
    "stream_options",
    "include_usage",
    "continuous_usage_stats",
    "top_p",
    "temperature",
    "url",
    "image_url",
    "video_url",
    "audio_url",
    "source",
    "messages",
    "input",
    "documents",
    "content",
    "x",
)
PLAIN = (
    "null",
    "true",
    "false",
    "0",
    "-1.5e3",
    "1e400",
    "9" * 20,
    '"m"',
    '"fast"',
    '""',
    '"http://h"',
    '"\\ud83d\\ude00"',
)


def target(data: bytes) -> None:
    check(data[:1], *data[1:].partition(b"\n")[::2])
    dice = atheris.FuzzedDataProvider(data)
    check(b"\x00", b"application/json", value(dice, 4).encode())
    check_coding(data)


def value(dice: atheris.FuzzedDataProvider, levels: int) -> str:
    """Some JSON, which random bytes hardly ever are."""
    kind = dice.ConsumeIntInRange(0, 3)
    if not levels or not kind:
        return PLAIN[dice.ConsumeIntInRange(0, len(PLAIN) - 1)]
    inner = [value(dice, levels - 1) for _ in range(dice.ConsumeIntInRange(0, 4))]
    if kind == 1:
        return f"[{','.join(inner)}]"
    names = (NAMES[dice.ConsumeIntInRange(0, len(NAMES) - 1)] for _ in inner)
    fields = (f'"{name}": {one}' for name, one in zip(names, inner, strict=True))
    return "{" + ", ".join(fields) + "}"


def check(first: bytes, content_type: bytes, body: bytes) -> None:
    """first: which route it is."""
    route = TABLE[first[0] % len(TABLE)] if first else TABLE[0]
    reading = None
    try:
        reading = BodyReader(ALIASES, MAX, POLICIES[len(body) % 2]).begin(body, content_type, route)
        while not reading.advance():
            pass
        parsed = reading.parsed()
    except InvalidRequest:
        return
    remote_media(parsed)
    if route.kind is Kind.JSON:
        compare(parsed, body.removeprefix(b"\xef\xbb\xbf"), route)
    else:
        assert parsed.body == body


def compare(parsed: ParsedBody, body: bytes, route: Route) -> None:
    """Where a parser takes it, the parser reads the same model; and what is sent is the body with a few splices."""
    try:
        pairs = json.loads(body, object_pairs_hook=list)
        said = json.loads(body)
    except ValueError:
        return  # the worker refuses it
    assert [name for name, _ in pairs].count("model") == 1
    sent = json.loads(parsed.body)
    assert sent["model"] == parsed.model
    if parsed.alias is None:
        assert said["model"] == parsed.model
        assert parsed.hides_usage or parsed.body == body
    put_in = {"stream_options"} if parsed.hides_usage else set()
    put_in |= {"model", "temperature", "top_p"} if parsed.alias is not None else set()
    assert rest(said, put_in) == rest(sent, put_in)
    if parsed.alias is None and "stream_options" not in said:
        assert parsed.body.replace(ASK_FOR_USAGE, b"", 1) == body
    if said.get("stream") is True and route.asks_usage and isinstance(sent.get("stream_options"), dict):
        assert sent["stream_options"]["include_usage"] is True


def rest(fields: dict[str, object], put_in: set[str]) -> str:
    """All but what is put in. As text: NaN is no equal of itself."""
    return json.dumps({name: value for name, value in fields.items() if name not in put_in}, sort_keys=True)


def check_coding(data: bytes) -> None:
    """Any bytes are what was compressed, or refused."""
    for coding in DECODERS:
        with suppress(InvalidRequest, RequestTooLarge):
            assert len(decoded(data, coding, 1000)) <= 1000


if __name__ == "__main__":
    main(target, SEEDS)
