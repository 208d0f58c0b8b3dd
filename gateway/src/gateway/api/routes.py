"""The table of proxied routes. A path that is not in it goes to the control side, which has pages or answers 404."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Dialect(Enum):
    """The API whose error format a route uses."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


class Kind(Enum):
    """The kind of a request's body, and so where the model's name stands."""

    JSON = "json"
    FORM = "form"
    STORED = "stored"  # no body: it names a stored response


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `target`: the path at the worker, b"" if the same; `also`: other paths under which vLLM serves it;
    `ends`: lines of which a complete stream has one, in its last event; `brings_text`: what an event of a stream has
    that brings text, where the worker tells no usage with it."""

    name: str
    path: bytes
    summary: str
    method: bytes = b"POST"
    target: bytes = b""
    also: tuple[bytes, ...] = ()
    kind: Kind = Kind.JSON
    dialect: Dialect = Dialect.OPENAI
    ends: tuple[bytes, ...] = (b"data: [DONE]",)
    brings_text: bytes = b""
    asks_usage: bool = False  # a stream tells its tokens only if `stream_options` asks
    reasons: bool = False  # its answers have a field `reasoning`
    stores: bool = False  # its answers have an id that later requests name
    streams: bool = False  # if it is asked to
    salts: bool = (
        False  # the worker takes `cache_salt`: only requests of the same one find the prompt in its cache
    )
    pools: bool = False  # the worker takes `priority` from the body only
    prompts: bool = False  # a model reads what is sent, so that it costs prompt tokens
    generates: bool = False  # an answer has as many tokens as the model likes

    @property
    def at_worker(self) -> bytes:
        """Return the path to ask a worker for, whichever of the route's paths the client used."""
        return self.target or self.path


ERROR = b"event: error"  # the last event of a stream that the worker itself reports as failed
RESPONSE_ENDS = (
    b"event: response.completed",
    b"event: response.incomplete",
    b"event: response.failed",
    ERROR,
)
CHOICES = b'"choices":[{'
TABLE = (
    Route("chat_completions", b"/v1/chat/completions", "A chat", streams=True, asks_usage=True, reasons=True,
          salts=True, brings_text=CHOICES, prompts=True, generates=True),
    Route("completions", b"/v1/completions", "The continuation of a text", streams=True, asks_usage=True,
          salts=True, brings_text=CHOICES, prompts=True, generates=True),
    Route("responses", b"/v1/responses", "A response", dialect=Dialect.RESPONSES, ends=RESPONSE_ENDS, stores=True,
          streams=True, salts=True, brings_text=b".delta\n", prompts=True, generates=True),
    Route("response", b"/v1/responses/{id}", "A stored response", b"GET", kind=Kind.STORED,
          dialect=Dialect.RESPONSES, ends=RESPONSE_ENDS, streams=True),
    Route("response_cancel", b"/v1/responses/{id}/cancel", "Ends a response that is being made", kind=Kind.STORED,
          dialect=Dialect.RESPONSES),
    Route("messages", b"/v1/messages", "A message, as Anthropic's clients ask for one", dialect=Dialect.ANTHROPIC,
          ends=(b"event: message_stop", ERROR), streams=True, salts=True, brings_text=b"content_block_delta\n",
          prompts=True, generates=True),
    Route("count_tokens", b"/v1/messages/count_tokens", "How many tokens a message has", dialect=Dialect.ANTHROPIC),
    Route("embeddings", b"/v1/embeddings", "Embeddings of texts",
          salts=True, pools=True, prompts=True),
    Route("rerank", b"/v1/rerank", "Documents in the order of their relevance", also=(b"/rerank", b"/v2/rerank"),
          salts=True, pools=True, prompts=True),
    Route("score", b"/v1/score", "How similar texts are", also=(b"/score",),
          salts=True, pools=True, prompts=True),
    Route("pooling", b"/v1/pooling", "The pooled output of a model", target=b"/pooling",
          salts=True, pools=True, prompts=True),
    Route("classify", b"/v1/classify", "The classes of texts", target=b"/classify",
          salts=True, pools=True, prompts=True),
    Route("tokenize", b"/v1/tokenize", "The tokens of a text or chat", target=b"/tokenize"),
    Route("detokenize", b"/v1/detokenize", "The text of tokens", target=b"/detokenize"),
    Route("transcriptions", b"/v1/audio/transcriptions", "The text of a recording", kind=Kind.FORM, streams=True),
    Route("translations", b"/v1/audio/translations", "The English text of a recording", kind=Kind.FORM,
          streams=True),
)  # fmt: skip


class Routes:
    """The table by path, including the other paths that vLLM has for a route. A slash at a path's end is ignored."""

    def __init__(self, table: Iterable[Route] = TABLE) -> None:
        self.table = tuple(table)
        plain = [route for route in self.table if b"{" not in route.path]
        self._by_path: Mapping[bytes, Route] = {path: route for route in plain for path in spellings(route)}
        self._stored = [route for route in self.table if route.kind is Kind.STORED]

    def find(self, path: bytes) -> Route | None:
        """Return the row of a path, or None if the path is not proxied. The connection asks at each request's head."""
        path = without_slash(path)
        return self._by_path.get(path) or next((r for r in self._stored if stored_id(r, path)), None)


def spellings(route: Route) -> tuple[bytes, ...]:
    """Return all paths under which clients may ask for a route."""
    return (route.path, route.at_worker, *route.also)


def without_slash(path: bytes) -> bytes:
    """Return a path without the slash at its end, which some clients add. `/` itself stays."""
    return path[:-1] if path.endswith(b"/") and path != b"/" else path


def stored_id(route: Route, path: bytes) -> bytes | None:
    """Return the id in a path of a stored response, to find its worker; None if the path is not one of this route's."""
    before, _, after = route.path.partition(b"{id}")
    if not path.startswith(before) or not path.endswith(after):
        return None
    found = path[len(before) : len(path) - len(after)]
    return found if found and b"/" not in found else None
