"""Pages with a part that a program writes, between two comments that name it. Pure."""


def marks(target: str) -> tuple[str, str]:
    """The lines that begin and end what `make <target>` writes."""
    begin, end = (f"<!-- written by `make {target}`: {side} -->\n" for side in ("begin", "end"))
    return begin, end


def replaced(page: str, text: str, target: str) -> str:
    """`page` with `text` between the marks of `target`. Raises ValueError without them."""
    first, last = marks(target)
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the page lacks {first.strip()} or {last.strip()}")
    return f"{before}{first}\n{text}\n{last}{after}"
