"""What comes through the gateway is what the worker itself would have said: 200 requests on real vLLM."""

import json

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import Stack

COUNT = 200
# In the gateway's container, the one that reaches both. Each prompt is asked once before, so that both find it cached.
COMPARE = r"""
import json, random, urllib.error, urllib.request

def ask(host, path, body):
    kind = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://{host}:8000{path}", json.dumps(body).encode(), kind)
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy
    try:
        with directly.open(request, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{host} answers {error.code}: {error.read().decode()} to {body}")

def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("id", "created", "reasoning_content", "request_id")}
    return [plain(one) for one in value] if isinstance(value, list) else value

def events(text):
    whole = {}
    for part in filter(None, text.split("\n\n")):
        whole = joined(whole, {"done": True} if part == "data: [DONE]" else plain(json.loads(part[6:])))
    return whole

def joined(one, other, name=""):  # how many tokens share an event is a matter of how busy the worker is
    if isinstance(one, dict) and isinstance(other, dict):
        return {k: joined(one.get(k), other.get(k), k) for k in {**one, **other}}
    if name == "choices" and one is not None:
        return [joined(*pair) for pair in zip(one, other or [])] or one
    if isinstance(one, list) or (isinstance(one, str) and name in ("content", "reasoning", "text")):
        return one + (other or type(one)())
    return one if other is None else other

rng, differing, told = random.Random(4), [], 0
words = "number train weather wall computer galaxy ride city question answer".split()
for turn in range(COUNT):
    text = " ".join(rng.choices(words, k=rng.randint(1, 12)))
    body = {"model": MODEL, "max_tokens": rng.randint(1, 12), "temperature": 0, "seed": turn}
    if turn % 3 == 2:
        path, body = "/v1/completions", body | {"prompt": text, "logprobs": 2}
    else:
        path, body = "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    if turn % 2:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    ask(WORKER, path, body)
    direct, through = (ask(host, path, body) for host in (WORKER, "127.0.0.1"))
    read = events if turn % 2 else lambda text: plain(json.loads(text))
    told += len(through)
    if read(direct) != read(through):
        differing.append((turn, direct, through))
print(json.dumps({"differing": differing[:3], "count": len(differing), "told": told}))
"""


def test_answers_are_the_workers_own(stack: Stack) -> None:
    """Whole and streamed, chats and completions, equal but for ids, times and the second name of the reasoning."""
    code = COMPARE.replace("COUNT", str(COUNT)).replace("MODEL", repr(MODEL)).replace("WORKER", repr(SLUG))
    status, output = stack.run_in("gateway", code)
    assert status == 0, output
    found = json.loads(output.splitlines()[-1])
    assert (found["count"], found["differing"]) == (0, [])
    assert found["told"] > COUNT * 100
