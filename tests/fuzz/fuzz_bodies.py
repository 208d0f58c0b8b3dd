"""Any body is read or refused as the client's fault; what is sent says what the client has said."""

import json

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.bodies import Asked, Pairs, read, remote_media
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


def target(data: bytes) -> None:
    route = TABLE[data[0] % len(TABLE)] if data else TABLE[0]
    content_type, _, body = data[1:].partition(b"\n")
    try:
        asked = read(body, content_type, route, ALIASES)
    except InvalidRequest:
        return
    remote_media(asked)
    if route.kind is Kind.JSON:
        compare(asked, body)


def compare(asked: Asked, body: bytes) -> None:
    """The worker reads the client's model, fields and values; integers beyond 64 bits may have become floats."""
    pairs = json.loads(body, object_pairs_hook=Pairs)
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
