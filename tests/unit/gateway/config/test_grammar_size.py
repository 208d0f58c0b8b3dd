"""How large a grammar becomes: rules that repeat one another multiply, those that stand beside one another add."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.config.field_rules import MAX_REPEATS
from gateway.config.grammar_size import MAX_PIECES, TOO_LARGE, parts_of
from gateway.config.request_fields import GRAMMAR


@pytest.mark.parametrize(
    ("grammar", "parts"),
    [
        ('root ::= "a"', 0),
        ('root ::= "a"{5}', 5),
        ('root ::= "a"{5} "b"{2,7}', 12),
        ('root ::= ("a"{5} "b"){10}', 50),
        ('root ::= (("a"{5}){5}){5}', 125),
        ("root ::= a{100}\na ::= b{100}\nb ::= [x]{100}", 1_000_000),
        ("root ::= (a){100}\na ::= (b c){100}\nb ::= 'x'\nc ::= \"y\"{100}", 1_000_000),
        ("root ::= ((a)){3}\na ::= b{4} | b{5}\nb ::= [0-9]", 27),
        ('root ::= a b\na ::= "x"{4000}\nb ::= "x"{4000}', 4000),
        ("root ::= a{2} a{2}\na ::= [x]{10}", 40),
        ("start: a~100\na: b ~ 50..100\nb: /x/{100}", 1_000_000),
        ("a ::= b{9} ::= c{9}", 18),
        ("root ::= a{3}\na ::= root{3} | [x]{7}", 30),
        ("a ::= a{100}", 100),
        ('root ::= word (sep word){0,63}\nword ::= [a-z]{1,64}\nsep ::= ","', 63 * 64),
        ('# a{9999}{9999}\nroot ::= "a{9}" // {999999}', 0),
        ("a ::= b{99999999999999}", TOO_LARGE),
        ("(" * 99 + ")" * 200 + "{7}", 7),
        ("a{3}", 3),
        ("", 0),
        ('root ::= "x"{+1000000}', 1_000_000),
        ('root ::= "x"{ # }\n1000000}', 1_000_000),
        ('root ::= "x"{9, # }\n1000000}', 1_000_000),
        ('root ::= "x" -1{99} "y"\n-1 ::= "x" -2{99} "y"\n-2 ::= "x" .{99} "y"\n. ::= "x"', 99**3),
        ('root ::= # "\r a{99} "y"\na ::= b{99}\nb ::= "x"', 99**2),
        ('root ::= a{99} "y"\na[capture] ::= b{99}\nb ::= "x"', 99**2),
        ('start: a~99\na[max_tokens=9]: b~99\nb: "x"', 99**2),
        ('start: a~99\na[stop="]", max_tokens=9]: b~99\nb: "x"', 99**2),
        ('start: a~99\na.2: b~99\nb: "x"', 99**2),
        ('start: /#/ a~99\na: /"/ b~99\nb: "x"', 99**2),
        ('a: [b]~99\nb: ["]" c]~99\nc: "x"', 99**2),
        ('root ::= a{99}\na ::= a.1{99}\na.1 ::= b{99}\nb ::= "x"', 1_950_399),
    ],
)
def test_what_is_written_out(grammar: str, parts: int) -> None:
    """Names, groups and bounds, in the forms of GBNF and Lark; texts, classes and comments are left alone."""
    assert parts_of(grammar) == parts


def test_rules_that_repeat_one_another_are_refused() -> None:
    """Each repeats few, all together millions; one that grows by adding alone is taken."""
    chain = "".join(f"r{n} ::= r{n + 1}{{10}}\n" for n in range(7)) + 'r7 ::= "x"'
    found = GRAMMAR.fault(chain)
    assert found is not None
    assert "through rules that repeat others" in found[1]
    assert GRAMMAR.fault(chain.replace("{10}", "*")) is None
    assert (
        GRAMMAR.fault("".join(f'r{n} ::= "x"{{9}} r{n + 1}\n' for n in range(900)) + 'r900 ::= "y"') is None
    )


DATE = """root ::= "{" ws pair ("," ws pair){0,9} "}"
pair ::= string ":" ws value
value ::= string | number | array | root
array ::= "[" (value ("," ws value){0,5})? "]"
string ::= "\\"" [^"\\\\]{0,128} "\\""
number ::= "-"? [0-9]{1,15} ("." [0-9]{1,15})?
ws ::= [ \\t\\n]{0,8}
"""


def test_a_grammar_of_nested_values_is_taken() -> None:
    """Rules that name themselves are how nesting is said."""
    assert parts_of(DATE) <= MAX_REPEATS
    assert GRAMMAR.fault(DATE) is None


@given(some.text(alphabet='ab:=(){}0123456789,"[]~.|*+? \n\\\\/#-_', max_size=300))
def test_no_text_breaks_it(grammar: str) -> None:
    """Whatever stands there is a number."""
    assert 0 <= parts_of(grammar) <= TOO_LARGE


@pytest.mark.parametrize(
    "grammar",
    [
        *("(" * 32_000 + "{2}", "a{2}" * 8000, "a::=b" * 6000, "a " * 16_000 + "{2}"),
        *('"' * 32_000, "[" * 32_000, "{" * 32_000, "{" + " " * 32_000, "~" + "1" * 32_000),
        *(
            "a::=" + "b " * 9000 + "b::=" + "c " * 900,
            "a" + " " * 32_000,
            "\\" * 32_000,
            "{2}" + "#" * 32_000,
            *("{" + "#\n" * 16_000, "{ #\n" * 8000, "/a" * 16_000, "a[" * 16_000, "a[x]" + ":" * 30_000),
            "[" + "".join(f"a{number}:" for number in range(4600)) + "{2}",
            "[" + "".join(f"a{number}:{{2}}" for number in range(3400)),
        ),
    ],
)
def test_no_grammar_takes_long(grammar: str) -> None:
    """None of the largest size holds up the event loop; a hundredth of a second leaves room for a slow host."""
    best = min(timed(grammar) for _ in range(20))
    assert best < 0.05
    assert MAX_PIECES < 32_000


def timed(grammar: str) -> float:
    began = time.process_time()
    parts_of(grammar)
    return time.process_time() - began
