"""Any body is read or refused as the client's fault; what is sent says what the client has said."""

import json

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.bodies import Asked, read, remote_media
    from gateway.errors import InvalidRequest
    from gateway.models import Alias
    from gateway.routes import TABLE, Kind

from tests.fuzz.harness import main

ALIASES = {"fast": Alias(model="m", force={"temperature": 0}, default={"top_p": 1})}
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
SEEDS = (
    b'\x00application/json\n{"model":"m","messages":[{"role":"user","content":"x"}]}',
    b'\x00application/json\n{"model":"m","stream":true,"stream_options":{"include_usage":false}}',
    b'\x00application/json\n{"model":"fast","stream":true,"top_p":null}',
    b'\x01application/json\n{"a":[{"model":1}],"model":"m","\\u006dodel":"n","stream":true}',
    b'\x00application/json\n{"model":"m","messages":[{"content":[{"image_url":{"url":"http://x/y"}}]}]}',
    b"\x0emultipart/form-data; boundary=b\n" + FORM,
    b"\x0fmultipart/form-data; boundary*0*=utf-8''b\n" + FORM,
)


NAMES = (
    "model",
    "mod\\u0065l",
    "stream",
    "stream_options",
    "include_usage",
    "top_p",
    "url",
    "image_url",
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
    try:
        asked = read(body, content_type, route, ALIASES, 1 << 20)
    except InvalidRequest:
        return
    remote_media(asked)
    if route.kind is Kind.JSON:
        compare(asked, body)


def compare(asked: Asked, body: bytes) -> None:
    """The worker reads the client's model, fields and values; integers beyond 64 bits may have become floats."""
    pairs = json.loads(body, object_pairs_hook=list)
    assert [name for name, _ in pairs].count("model") == 1
    said, sent = (json.loads(text, parse_int=float) for text in (body, asked.body))
    if asked.alias is None:
        assert asked.model == said["model"] == sent["model"]
        assert rest(said, asked) == rest(sent, asked)
    if asked.body != body:
        assert asked.alias is not None or asked.hides_usage


def rest(fields: dict[str, object], asked: Asked) -> str:
    """All but what the gateway asks for. As text: NaN is no equal of itself."""
    kept = {
        name: value for name, value in fields.items() if name != "stream_options" or not asked.hides_usage
    }
    return json.dumps(kept, sort_keys=True)


if __name__ == "__main__":
    main(target, SEEDS)
