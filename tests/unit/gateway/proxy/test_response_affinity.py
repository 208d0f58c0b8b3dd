"""Stored responses are found at the worker that made them."""

from gateway.fleet.workers import Worker
from gateway.proxy.response_affinity import ResponseAffinity


def test_the_newest_are_kept() -> None:
    """The id is read from the answer's beginning; the oldest is forgotten."""
    affinity, worker = ResponseAffinity(most=2), Worker("alpha", "h", 1)
    for number in range(3):
        assert affinity.learn(b'{"id":"resp_%d","object":"response"}' % number, worker)
    assert [affinity.worker_of(b"resp_%d" % number) for number in range(3)] == [None, worker, worker]


def test_an_answer_without_an_id() -> None:
    """Nothing is learnt from it."""
    assert not ResponseAffinity().learn(b'{"error":{}}', Worker("alpha", "h", 1))
