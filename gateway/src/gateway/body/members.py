"""Say which members of a JSON body the scan looks for, by route: a table, and the tree that is made of it. Pure.

A worker fetches the media that content parts in these places name, and nothing else: a tool's arguments and results,
schemas, examples and `metadata` may use the same keys for other things. Paths go through lists: `messages.content`
means each part of each message. The table follows vLLM 0.32 (its chat parser, Responses, Messages and pooling)."""

from collections.abc import Iterable, Mapping
from typing import Final

NOTED: Final = (
    "model",
    "stream",
    "stream_options",
    "stream_options.include_usage",
    "stream_options.continuous_usage_stats",
    "previous_response_id",
    "user",
)
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
    value's position, or None; is_address: of media; element: what to look for in each element if it is a list."""

    def __init__(self) -> None:
        self.element = self
        self.inner: dict[bytes, Member] = {}
        self.is_address = False
        self.noted: str | None = None

    def at(self, path: str) -> "Member":
        """Return the member at a path such as `messages.content`; add what is missing on the way."""
        member = self
        for name in path.split("."):
            member = member.inner.setdefault(name.encode(), Member())
        return member

    def without_spans(self) -> "Member":
        """Return a copy of the member and those inside it, of which no position is noted: for elements of a list."""
        member = Member()
        member.is_address = self.is_address
        member.inner = {name: inner.without_spans() for name, inner in self.inner.items()}
        return member


def members_of(route: str, others: Iterable[str], *, media: bool) -> Member:
    """Return a route's tree; `BodyReader` keeps it. others: names that aliases set; media: look for addresses."""
    root = Member()
    for path in NOTED:
        root.at(path).noted = path
    for name in others:
        member = root.inner.setdefault(name.encode(), Member())  # `at` would split it at dots
        member.noted = name
    for path in addresses_of(route) if media else ():
        root.at(path).is_address = True
    for member in root.inner.values():
        if member.noted is not None:  # its elements are not the member itself, and may be many
            member.element = member.without_spans()
    return root


def addresses_of(route: str) -> list[str]:
    """Return the paths of all addresses that a worker would fetch for a body of this route."""
    named = [f"{part}.{key}" for part in PARTS[route] for key in PART_KEYS]
    return [*named, *(f"{path}.url" for path in [*named, *SOURCES.get(route, ())])]
