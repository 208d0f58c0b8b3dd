"""What a request may cost before it is sent, and how that is learned from what workers say. Pure."""

from typing import Final

TOKENS_PER_BYTE: Final = (
    0.3  # of a model of which nothing is known yet: English has about 0.25, Chinese about 0.3
)
TOKENS_OUT: Final = 256.0  # of an answer of such a model
LONGEST: Final = 64  # answers over which the mean is taken: it follows a change of what is asked
MOST_TOKENS: Final = 1 << 24  # of one answer: more than any model's context; clients may write what they like


class Cost:
    """What a request may need, reserved when it comes."""

    def __init__(self, tokens_in: int = 0, tokens_out: int = 0, requests: int = 1) -> None:
        self.requests = requests
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out


class Used:
    """What a request has used when it is over."""

    def __init__(self, tokens_in: int, tokens_out: int) -> None:
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out


class Model:
    """What is known of one model: prompt tokens for each byte of a body's text, and tokens of an answer."""

    def __init__(self) -> None:
        self.per_byte = TOKENS_PER_BYTE
        self.out = TOKENS_OUT
        self.prompts = self.answers = 0  # that were learned from
        self._bytes = self._tokens = 0.0  # of those prompts, older ones counting less

    def learn_prompt(self, text_bytes: int, tokens: int) -> None:
        """Learn from a prompt of so many bytes of text. What it has beyond a token for each byte was not in the body:
        the conversation before it, or the model's template. Short prompts say little, so each counts by its bytes."""
        self.prompts = min(self.prompts + 1, LONGEST)
        rest = 1 - 1 / self.prompts
        self._bytes = self._bytes * rest + text_bytes
        self._tokens = self._tokens * rest + min(tokens, text_bytes)
        self.per_byte = self._tokens / self._bytes

    def learn_answer(self, tokens: int) -> None:
        self.answers = min(self.answers + 1, LONGEST)
        self.out += (tokens - self.out) / self.answers


class Estimates:
    """The estimates of all models; one per process."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def of(self, model: str) -> Model:
        """Return what is known of a model that a card declares."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = Model()
        return found
