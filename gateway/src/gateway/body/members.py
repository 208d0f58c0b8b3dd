"""Which members of a JSON body are looked for, by route: a table, and the tree that is made of it. Pure.

A worker fetches what content parts of these places name, and nothing else: what a tool gets or returns, a schema, an
example or `metadata` is anybody's text, whatever its keys are called. Lists are passed through: `messages.content`
means each part of each message. The table follows vLLM 0.32 (its chat parser, Responses, Messages and pooling).
"""

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
# Of a content part: an address, or an object with `url`.
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
SOURCES: Final = {
    "messages": SOURCE,
    "count_tokens": SOURCE,
}  # Anthropic's images, in messages and tools' results


class Member:
    """A member that is looked for. noted: the name under which its value's position is kept; is_address: of media;
    element: what is looked for in each element, if its value is a list."""

    def __init__(self) -> None:
        self.element = self
        self.inner: dict[bytes, Member] = {}
        self.is_address = False
        self.noted: str | None = None

    def at(self, path: str) -> "Member":
        """The member at a path of names with dots between them."""
        member = self
        for name in path.split("."):
            member = member.inner.setdefault(name.encode(), Member())
        return member

    def unnoted(self) -> "Member":
        """The same member, and those in it, where no position is kept."""
        member = Member()
        member.is_address = self.is_address
        member.inner = {name: inner.unnoted() for name, inner in self.inner.items()}
        return member


def members_of(route: str, others: Iterable[str], *, media: bool) -> Member:
    """What is looked for in a body of a route. others: more members whose position is wanted."""
    root = Member()
    for path in NOTED:
        root.at(path).noted = path
    for name in others:
        member = root.inner.setdefault(name.encode(), Member())
        member.noted = name
    for path in addresses_of(route) if media else ():
        root.at(path).is_address = True
    for member in root.inner.values():
        if member.noted is not None:  # what is in a list is not that member, and may be there many times
            member.element = member.unnoted()
    return root


def addresses_of(route: str) -> list[str]:
    """The paths of all addresses that a worker would fetch."""
    named = [f"{part}.{key}" for part in PARTS[route] for key in PART_KEYS]
    return [*named, *(f"{path}.url" for path in [*named, *SOURCES.get(route, ())])]
