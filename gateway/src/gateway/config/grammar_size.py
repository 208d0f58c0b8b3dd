"""How large a grammar becomes once its repetitions are written out: a rule may repeat another one that repeats a third.

It reads what the grammars of vLLM's backends have in common (GBNF and Lark): rules of names, texts, classes and groups,
with bounds in braces. Pure."""

import re
from typing import Final

PIECE: Final = re.compile(
    r"""(?:\#|//)[^\n]*"""  # a comment
    r"""|(?P<text>"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|\[(?:[^\]\\\n]|\\.)*\]?|\\.)"""  # or a class
    r"""|(?P<rule>[A-Za-z_][A-Za-z0-9_.-]*+)\s*+(?P<defined>::=|:)?"""
    r"""|\{\s*+(?P<least>[0-9]*+)\s*+(?:,\s*+(?P<most>[0-9]*+)\s*+)?\}"""
    r"""|~\s*+(?P<from>[0-9]++)(?:\s*+\.\.\s*+(?P<to>[0-9]++))?"""  # Lark's repetition
    r"""|(?P<bracket>[()])""",
    re.DOTALL,
)
MAX_PIECES: Final = 10_000  # of a grammar with repetitions, which take a few milliseconds
TOO_LARGE: Final = 10**9  # that no sum here goes beyond
Body = list[tuple[str, int]]  # what a rule consists of: names, `(`, `)`, and REPEAT with how often
REPEAT: Final = "{"
TEXT: Final = ""


def parts_of(grammar: str) -> int:
    """Return how many parts the largest rule of a grammar repeats, with all that they consist of; a rule that names
    itself counts once there."""
    rules = rules_in(grammar)
    sizes: dict[str, int] = {}
    for name in rules:
        if name not in sizes:
            measure(name, rules, sizes)
    return max(sizes.values(), default=0)


def rules_in(grammar: str) -> dict[str, Body]:
    """Return the rules of a grammar, each in the few pieces that count. What stands before the first is a rule `""`;
    one of too many pieces is a rule that repeats itself too often."""
    body: Body = []
    rules = {TEXT: body}
    for at, found in enumerate(PIECE.finditer(grammar)):
        if at == MAX_PIECES:
            return {TEXT: [(REPEAT, TOO_LARGE)]}
        name = found["rule"]
        if name is not None and found["defined"]:
            body = rules.setdefault(name, [])
        elif name is not None:
            body.append((name, 1))
        elif found["bracket"] is not None:
            body.append((found["bracket"], 1))
        elif found["text"] is not None:
            body.append((TEXT, 1))
        elif found["least"] is not None or found["from"] is not None:
            body.append((REPEAT, times_of(found["least"], found["most"], found["from"], found["to"])))
    return rules


def times_of(*bounds: str | None) -> int:
    """Return the highest bound of a repetition, at most TOO_LARGE; 0 without any."""
    return max([int(bound) if len(bound) < 10 else TOO_LARGE for bound in bounds if bound] or [0])


def measure(name: str, rules: dict[str, Body], sizes: dict[str, int]) -> None:
    """Add the size of a rule and of those that it names to `sizes`, without recursion: there may be thousands."""
    waiting, measured = [name], set(sizes)
    while waiting:
        current = waiting[-1]
        if current not in sizes:
            sizes[current] = 0  # while those that it names are measured: it may be one of them
            named = dict.fromkeys([other for other, _ in rules[current]])
            waiting += [other for other in named if other in rules and other not in sizes]
            continue
        waiting.pop()
        if current not in measured:
            measured.add(current)
            sizes[current] = size_of(rules[current], sizes)


def size_of(body: Body, sizes: dict[str, int]) -> int:
    """Return how many parts a rule repeats. What stands alone counts nothing, but within a repeated group the size of
    the rule that it names does."""
    repeated = [0]  # by depth of groups: what is repeated so far
    inner = [0]  # that, and the size of the rules that are named there
    own = last = 0  # how much the item before has added to either
    for piece, times in body:
        if piece == "(":
            repeated.append(0)
            inner.append(0)
            own = last = 0
            continue
        if piece == ")" and len(repeated) > 1:
            own, last = repeated.pop(), inner.pop()
        elif piece == REPEAT:
            repeated[-1] -= own
            inner[-1] -= last
            own = last = min(times * max(last, 1), TOO_LARGE)
        else:
            own, last = 0, sizes.get(piece, 0)
        repeated[-1] += own
        inner[-1] += last
    return min(sum(repeated), TOO_LARGE)
