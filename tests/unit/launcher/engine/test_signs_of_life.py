"""When a vLLM that is warmed last gave a sign of life, by its answers and its numbers."""

from __future__ import annotations

import pytest

from launcher.engine import signs_of_life
from launcher.engine.question import OK
from launcher.engine.signs_of_life import SignsOfLife

PAGE = "vllm:num_requests_running 1\nvllm:generation_tokens_total {}\n"


class Asked:
    """A question to a vLLM that says what the test says; `page` None: nothing."""

    page: str | None = PAGE.format(1)

    def __init__(self, port: int, words: bytes) -> None:
        self.over, self.too_large, self.problem, self.status = False, False, None, OK

    def pump(self) -> None:
        self.over = self.page is not None

    @property
    def body(self) -> bytes:
        assert self.page is not None
        return self.page.encode()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(signs_of_life, "Question", type("Question", (Asked,), {}))
    return [0.0]


def said(page: str | None) -> None:
    signs_of_life.Question.page = page  # type: ignore[attr-defined]


def looks(found: SignsOfLife, now: list[float], seconds: float) -> SignsOfLife:
    for _ in range(round(seconds / 0.5)):
        now[0] += 0.5
        found.tick()
    return found


def test_a_change_counts_from_the_look_before(now: list[float]) -> None:
    """It came then at the earliest: what moved before a time and was seen after it has not moved since."""
    found = SignsOfLife(1, lambda: now[0])
    looks(found, now, 4)
    assert (found.sign_at, found.quiet_s, found.can_tell) == (0.0, 4.0, True)
    said(PAGE.format(2))
    looks(found, now, 2)
    assert 2.0 <= found.sign_at < 4.0
    assert found.quiet_s < 2.0
    found.note_sign()
    assert (found.sign_at, found.quiet_s) == (6.0, 0.0)


def test_silence_is_no_life_and_words_of_another_kind_cannot_tell(now: list[float]) -> None:
    found = looks(SignsOfLife(1, lambda: now[0]), now, 4)
    said(None)
    assert (looks(found, now, 60).quiet_s, found.can_tell) == (64.0, True)
    said("python_info 1.0")
    assert not looks(found, now, 4).can_tell


def test_time_in_which_we_slept_does_not_count(now: list[float]) -> None:
    """A container paused for a day: vLLM was, too."""
    found = looks(SignsOfLife(1, lambda: now[0]), now, 2)
    now[0] += 86_400.0
    found.tick()
    assert found.quiet_s == 5.0
