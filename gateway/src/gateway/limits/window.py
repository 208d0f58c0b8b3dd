"""A sliding window: how much was used in the last minute, in slots of a fraction of a second. Pure: `now` is given, as
the number of the present slot, counted on a clock that never jumps and that all processes share.

The window has one slot more than a minute has, since the present one has only begun: what was used counts for a minute
and at most one slot longer, so in no minute whatever is more used than the limit."""

from typing import Final

# The first word is the newest slot's number. Behind it:
TOTAL: Final = 1  # the slots' sum
DEBT: Final = 2
FIRST: Final = 3  # the first slot


class Shape:
    """How long all windows are, and how fine. slots: in a window's length; slot_ms: milliseconds of each."""

    def __init__(self, slots: int = 240, slot_ms: int = 250) -> None:
        self.kept = slots + 1
        self.slot_ms = slot_ms
        self.words = FIRST + self.kept  # that one window takes
        self.length_ms = self.kept * slot_ms  # after which nothing of what is used now is counted any more


class Window:
    """One window, in `words` from index `base`. Methods with `limit` need it only to know what of the debt can be paid.

    The slots hold at most the limit. What was used beyond it, because a request turned out to need more than it had
    reserved, is a debt: it is paid first, whenever a slot leaves the window. So the mean does not exceed the limit."""

    def __init__(self, words: memoryview, base: int, shape: Shape) -> None:
        self._words = words
        self._base = base
        self._kept = shape.kept

    def advance(self, now: int, limit: int) -> int:
        """Let the slots leave that are too old at slot `now`, pay the debt, and return how much is used, debt included.
        A `now` before the newest slot counts as that one: another process has looked at the clock later."""
        words, base = self._words, self._base
        if words[base + DEBT]:
            self._pay_until(now, limit)
        head = words[base]
        total: int = words[base + TOTAL]
        if now > head:
            if total:
                total -= self._clear(head, now)
                words[base + TOTAL] = total
            words[base] = now
        debt: int = words[base + DEBT]
        return total + debt

    def _pay_until(self, now: int, limit: int) -> None:
        """Pay the debt until slot `now` as if somebody had looked in each slot, so that it is paid while nobody asks.
        While there is debt, what leaves is paid at once: after a whole window its slots are the same again."""
        words, base, kept = self._words, self._base, self._kept
        self._pay(limit)
        while words[base + DEBT] and words[base] < now:
            head: int = words[base]
            if words[base + TOTAL] == limit:
                windows = min((now - head) // kept, words[base + DEBT] // limit)
                head += windows * kept
                words[base + DEBT] -= windows * limit
            if head < now:
                words[base + TOTAL] -= self._clear(head, head + 1)
                head += 1
            words[base] = head
            self._pay(limit)

    def _pay(self, limit: int) -> None:
        """Pay of the debt what fits in the newest slot."""
        words, base = self._words, self._base
        paid = min(words[base + DEBT], limit - words[base + TOTAL])
        if paid > 0:
            words[base + DEBT] -= paid
            self.take(paid)

    def _clear(self, head: int, now: int) -> int:
        """Empty the slots that the numbers from head + 1 to `now` take over; return how much was in them."""
        words, first, kept = self._words, self._base + FIRST, self._kept
        gone = 0
        for number in range(head + 1, head + 1 + min(now - head, kept)):
            at = first + number % kept
            amount: int = words[at]
            if amount:
                gone += amount
                words[at] = 0
        return gone

    def take(self, amount: int) -> int:
        """Count `amount` in the newest slot, and return its number. `advance` has told that it fits."""
        words, base = self._words, self._base
        head: int = words[base]
        words[base + FIRST + head % self._kept] += amount
        words[base + TOTAL] += amount
        return head

    def give_back(self, amount: int, slot: int) -> None:
        """Take back what was counted in `slot` and not used, unless the slot has left the window meanwhile. It need not
        be advanced before."""
        words, base = self._words, self._base
        if words[base] - slot >= self._kept:
            return
        at = base + FIRST + slot % self._kept
        amount = min(amount, words[at])
        words[at] -= amount
        words[base + TOTAL] -= amount

    def charge(self, amount: int, limit: int) -> None:
        """Count what was used beyond a reservation: in the newest slot as far as it fits, the rest as a debt."""
        words, base = self._words, self._base
        fitting = max(0, min(amount, limit - words[base + TOTAL]))
        if fitting:
            self.take(fitting)
        words[base + DEBT] += amount - fitting

    def wait(self, amount: int, limit: int) -> int:
        """Return for how many slots `amount` (at most `limit`) will not fit: until enough has left, the debt paid. As
        long as there is debt, each window frees as much as the one before."""
        words, base, kept = self._words, self._base, self._kept
        head: int = words[base]
        total: int = words[base + TOTAL]
        left: int = total + words[base + DEBT] + amount - limit
        if left <= 0:
            return 0
        windows = (left - 1) // total if total else 0
        left -= windows * total
        for age in range(kept - 1, -1, -1):
            left -= words[base + FIRST + (head - age) % kept]
            if left <= 0:
                return windows * kept + kept - age
        return kept

    def whole_in(self) -> int:
        """Return in how many slots nothing will be counted any more, if nothing is used until then (debts apart)."""
        words, base, kept = self._words, self._base, self._kept
        head: int = words[base]
        for age in range(kept):
            if words[base + FIRST + (head - age) % kept]:
                return kept - age
        return 0

    def recount(self) -> None:
        """Make the sum true again, after a process was killed while it changed the window."""
        words, base = self._words, self._base
        total: int = sum(words[base + FIRST : base + FIRST + self._kept])
        words[base + TOTAL] = total
