"""How large a grammar becomes once its repetitions are written out: a rule may repeat another one that repeats a third.

It reads what the grammars of vLLM's backends have in common: rules of names, texts, classes and groups, with bounds in
braces. GBNF and Lark read brackets and slashes differently, and only the backend decides which of them a grammar is: so
it is read as both, and the larger size counts. Pure."""

import re
from typing import Final

# Blanks and comments, which may stand within a repetition too. Nothing in it can be gone back to: before Python
# 3.11.5 such possessive groups match wrongly.
GAP: Final = r"\s*+(?:[\#/][^\r\n]*+\s*+)*+"
OTHERS: Final = (
    r"""|(?P<rule>[A-Za-z_.-][A-Za-z0-9_.-]*+)\s*+(?P<defined>::=|:)?"""  # xgrammar's names may begin with - and .
    r"""|(?P<late>::?=?)"""  # behind attributes of the rule: `name[capture] ::=`
    rf"""|\{{{GAP}[+-]*+(?P<least>[0-9]*+){GAP}(?:,{GAP}[+-]*+(?P<most>[0-9]*+){GAP})?\}}"""
    rf"""|~{GAP}(?P<from>[0-9]++)(?:{GAP}\.\.{GAP}(?P<to>[0-9]++))?"""  # Lark's repetition
)
COMMENT: Final = r"""(?:\#|//)[^\r\n]*"""
QUOTED: Final = r""""(?:[^"\\\r\n]|\\[^\r\n])*"?|'(?:[^'\\\r\n]|\\[^\r\n])*'?|\\[^\r\n]"""
READINGS: Final = (
    re.compile(  # GBNF: what is in square brackets is a class of letters
        rf"{COMMENT}|(?P<text>{QUOTED}|\[(?:[^\]\\\r\n]|\\[^\r\n])*\]?){OTHERS}|(?P<bracket>[()])"
    ),
    re.compile(  # Lark: it is a group that may be left out; and an expression stands between slashes
        rf"{COMMENT}|(?P<text>{QUOTED}|/(?:[^/\\\r\n]|\\[^\r\n])++/){OTHERS}|(?P<bracket>[()\[\]])"
    ),
)
PRIORITY: Final = re.compile(r"(.+?)\.[0-9]++")  # of a rule in Lark, which stands behind its name
MAX_PIECES: Final = 10_000  # of a grammar with repetitions, which take a few milliseconds
TOO_LARGE: Final = 10**9  # that no sum here goes beyond
Body = list[tuple[str, int]]  # what a rule consists of: names, `(`, `)`, and REPEAT with how often
REPEAT: Final = "{"
TEXT: Final = ""


def parts_of(grammar: str) -> int:
    """Return how many parts the largest rule of a grammar repeats, with all that they consist of; a rule that names
    itself counts once there."""
    readings = READINGS if "[" in grammar or "/" in grammar else READINGS[:1]  # which else find the same
    return max([largest(rules_in(grammar, reading)) for reading in readings])


def largest(rules: dict[str, Body]) -> int:
    """Return the size of the largest rule. One that repeats nothing has none, so it is measured only if named."""
    sizes: dict[str, int] = {}
    measured: set[str] = set()
    for name, body in rules.items():
        if name not in sizes and REPEAT in [piece for piece, _ in body]:
            measure(name, rules, sizes, measured)
    return max(sizes.values(), default=0)


def rules_in(grammar: str, reading: re.Pattern[str]) -> dict[str, Body]:
    """Return the rules of a grammar, each in the few pieces that count. What stands before the first is a rule `""`;
    one of too many pieces is a rule that repeats itself too often."""
    body: Body = []
    rules = {TEXT: body}
    named, named_at = TEXT, 0  # the last name that is used outside of brackets, and where in the body
    depth = 0  # of brackets
    for at, found in enumerate(reading.finditer(grammar)):
        if at == MAX_PIECES:
            return {TEXT: [(REPEAT, TOO_LARGE)]}
        name = found["rule"]
        if name is not None and found["defined"]:
            body, depth = rule_of(name, rules), 0
        elif name is not None:
            if not depth:
                named, named_at = name, len(body)
            body.append((name, 1))
        elif found["late"] is not None:
            if named and is_bracketed(body, named_at + 1):
                del body[named_at:]
                body, named = rule_of(named, rules), TEXT
        elif found["bracket"] is not None:
            opens = found["bracket"] in "(["
            depth = depth + 1 if opens else max(0, depth - 1)
            body.append(("(" if opens else ")", 1))
        elif found["text"] is not None:
            body.append((TEXT, 1))
        elif found["least"] is not None or found["from"] is not None:
            body.append((REPEAT, times_of(found["least"], found["most"], found["from"], found["to"])))
    return rules


def rule_of(name: str, rules: dict[str, Body]) -> Body:
    """Return the body of a rule that is defined. Lark's priority is no part of the name by which others name it."""
    found = PRIORITY.fullmatch(name)
    body = rules.setdefault(name if found is None else found[1], [])
    rules[name] = body
    return body


def is_bracketed(body: Body, at: int) -> bool:
    """Whether nothing but what was in one pair of square brackets stands in a body from `at` on."""
    return len(body) > at and (body[at:] == [(TEXT, 1)] or (body[at][0] == "(" and body[-1][0] == ")"))


def times_of(*bounds: str | None) -> int:
    """Return the highest bound of a repetition, at most TOO_LARGE; 0 without any."""
    return max([int(bound) if len(bound) < 10 else TOO_LARGE for bound in bounds if bound] or [0])


def measure(name: str, rules: dict[str, Body], sizes: dict[str, int], measured: set[str]) -> None:
    """Add the size of a rule and of those that it names to `sizes`, without recursion: there may be thousands.
    measured: the rules whose sizes are known."""
    waiting = [name]
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
