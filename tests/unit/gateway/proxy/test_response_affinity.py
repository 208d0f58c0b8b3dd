"""Stored responses are found at the worker that made them, with the name under which it did."""

from gateway.fleet.workers import Worker
from gateway.proxy.response_affinity import NOBODY, ResponseAffinity


def test_the_newest_are_kept() -> None:
    """The id is read from the answer's beginning; the oldest is forgotten."""
    affinity, worker = ResponseAffinity(most=2), Worker("alpha", "h", 1)
    for number in range(3):
        assert affinity.learn(b'{"id":"resp_%d","object":"response"}' % number, worker, "a")
    made = (worker, "a")
    assert [affinity.holder_of(b"resp_%d" % number) for number in range(3)] == [NOBODY, made, made]


def test_who_finds_a_response_does_not_become_its_maker() -> None:
    """Its maker stays, or stays unknown."""
    affinity, first, second = ResponseAffinity(), Worker("alpha", "h", 1), Worker("alpha", "h", 2)
    affinity.learn(b'{"id":"resp_1"}', first, "a")
    for name in (b"resp_1", b"resp_2"):
        affinity.note(name, second)
    assert affinity.holder_of(b"resp_1") == (second, "a")
    assert affinity.holder_of(b"resp_2") == (second, "")


def test_an_answer_without_an_id() -> None:
    """Nothing is learnt from it."""
    assert not ResponseAffinity().learn(b'{"error":{}}', Worker("alpha", "h", 1), "a")
