"""Say which members of a JSON body the scan looks for, by route: a table, and the tree that is made of it. Pure.

A worker fetches the media that content parts in these places name, and nothing else: a tool's arguments and results,
schemas, examples and `metadata` may use the same keys for other things. Paths go through lists: `messages.content`
means each part of each message. The table follows vLLM 0.32 (its chat parser, Responses, Messages and pooling)."""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config.field_policy import RoutePolicy
from gateway.config.request_fields import REFUSED_TYPES

NOTED: Final = (
    "model",
    "stream",
    "stream_options",
    "stream_options.include_usage",
    "stream_options.continuous_usage_stats",
    "n",
    "previous_response_id",
    "user",
    "priority",
    "cache_salt",
)
# Noted too, but what is wrong with them is the worker's to say: only a request's place in the queue follows from them.
HINTS: Final = ("service_tier", "max_tokens", "max_completion_tokens", "max_output_tokens")
# Keys of a content part whose value is an address, or an object with `url`.
PART_KEYS: Final = ("image_url", "video_url", "audio_url")
CHAT: Final = ("messages.content",)
POOLING: Final = ("messages.content", "input.content")
SCORED: Final = ("queries", "documents", "items", "text_1", "text_2", "data_1", "data_2", "query")
PARTS: Final[Mapping[str, tuple[str, ...]]] = {  # where the content parts of a route's body are
    "chat_completions": CHAT,
    "completions": (),
    "responses": ("input", "input.content", "input.output", "previous_input_messages.content"),
    "messages": (),
    "count_tokens": (),
    "embeddings": POOLING,
    "pooling": POOLING,
    "classify": POOLING,
    "rerank": tuple(f"{name}{inner}" for name in SCORED for inner in ("", ".content")),
    "score": tuple(f"{name}{inner}" for name in SCORED for inner in ("", ".content")),
    "tokenize": CHAT,
    "detokenize": (),
}
SOURCE: Final = ("messages.content.source", "messages.content.content.source")
SOURCES: Final = {"messages": SOURCE, "count_tokens": SOURCE}  # Anthropic's images, tool results' too


class Member:
    """A member that the scan looks for, with those inside it (inner). noted: the name under which the scan notes its
    value's position, or None; is_address: of media; is_media: media themselves, in base64; element: what to look for in
    each element if it is a list.
    collected: the field whose elements are noted each; refused: the path under which the member is not taken at all;
    refused_texts: the values that it may not have, each with the path to name; is_closed: it may have no members but
    those in `inner`."""

    def __init__(self) -> None:
        self.element = self
        self.inner: dict[bytes, Member] = {}
        self.is_address = self.is_media = False
        self.noted: str | None = None
        self.collected: str | None = None
        self.refused: str | None = None
        self.refused_texts: dict[str, str] = {}
        self.is_closed = False

    def at(self, path: str) -> "Member":
        """Return the member at a path such as `messages.content`; add what is missing on the way."""
        member = self
        for name in path.split("."):
            member = member.inner.setdefault(name.encode(), Member())
        return member

    def without_spans(self) -> "Member":
        """Return a copy of the member and those inside it, of which no position is noted: for elements of a list."""
        member = Member()
        member.is_address, member.is_media = self.is_address, self.is_media
        member.refused, member.refused_texts = self.refused, self.refused_texts
        member.inner = {name: inner.without_spans() for name, inner in self.inner.items()}
        return member


def members_of(route: str, policy: RoutePolicy, others: Iterable[str], *, parts: bool) -> Member:
    """Return a route's tree; `BodyReader` keeps it. others: more top-level names to note; parts: look into content
    parts, for addresses and for what they may not have."""
    root = Member()
    root.is_closed = policy.known is not None
    for path in (*NOTED, *HINTS, *policy.rules):
        root.at(path).noted = path
    for name in others:
        root.inner.setdefault(name.encode(), Member()).noted = name  # `at` would split it at dots
    for name in (*(policy.known or ()), *policy.refused):
        root.at(name)
    for written, member in root.inner.items():
        if not policy.takes(written.decode()):
            member.refused = written.decode()
    if parts:
        add_parts(root, route, policy)
    for written, member in root.inner.items():
        if member.noted is not None:  # its elements are not the member itself, and may be many
            member.element = member.without_spans()
        rule = policy.rules.get(written.decode())
        if rule is not None and rule.by_element:
            member.element = Member()
            member.element.collected = written.decode()
            member.element.element = Member()
    return root


def add_parts(root: Member, route: str, policy: RoutePolicy) -> None:
    """Add the members of content parts that are looked for: addresses, and what no part may have."""
    for path in addresses_of(route):
        root.at(path).is_address = True
    for path in media_of(route):
        root.at(path).is_media = True
    for path in PARTS[route]:
        for name in policy.parts:
            root.at(f"{path}.{name}").refused = f"{path}.{name}"
        types = REFUSED_TYPES.intersection(policy.parts)
        root.at(f"{path}.type").refused_texts = {name: f"{path}.{name}" for name in types}


def addresses_of(route: str) -> list[str]:
    """Return the paths of all addresses that a worker would fetch for a body of this route."""
    named = [f"{part}.{key}" for part in PARTS[route] for key in PART_KEYS]
    return [*named, *(f"{path}.url" for path in [*named, *SOURCES.get(route, ())])]


def media_of(route: str) -> list[str]:
    """Return the paths at which a body of this route may hold media in base64, other than as addresses."""
    recordings = [f"{part}.input_audio.data" for part in PARTS[route]]
    return [*recordings, *(f"{path}.data" for path in SOURCES.get(route, ()))]
