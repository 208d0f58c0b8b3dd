"""Which of a worker's places a class may fill."""

import pytest

from gateway.config.api_keys import Priority
from gateway.config.model_options import Options, Reserved
from gateway.fleet.workers import Worker
from gateway.proxy.places import has_place, places_of

INTERACTIVE, NORMAL, BULK = Priority
ALL = frozenset(Priority)


def test_without_a_limit_there_are_no_places() -> None:
    """A worker takes what comes."""
    assert places_of(Options(), ALL) is None


@pytest.mark.parametrize(
    ("classes", "places"),
    [
        ([], (16, 16, 16)),
        ([NORMAL], (16, 16, 12)),
        ([BULK], (16, 16, 16)),
        ([INTERACTIVE, BULK], (16, 12, 12)),
        ([INTERACTIVE, NORMAL, BULK], (16, 12, 8)),
    ],
)
def test_places_are_kept_for_classes_that_have_keys(classes: list[Priority], places: tuple[int, ...]) -> None:
    """A quarter for each; what nobody could use is kept from nobody."""
    assert places_of(Options(in_flight_per_worker=16), frozenset(classes)) == places


@pytest.mark.parametrize("every", range(1, 20))
@pytest.mark.parametrize(
    "reserved", [Reserved(), Reserved(interactive=0.9, normal=0.9), Reserved(interactive=0)]
)
def test_each_class_has_a_place_and_no_more_than_a_higher_one(every: int, reserved: Reserved) -> None:
    """However few there are, and whatever is reserved."""
    places = places_of(Options(in_flight_per_worker=every, reserved=reserved), ALL)
    assert places is not None
    assert every == places[0] >= places[1] >= places[2] >= 1


@pytest.mark.parametrize("percent", range(100))
@pytest.mark.parametrize("every", [10, 16, 20, 25, 100])
def test_a_part_is_as_large_as_it_reads(every: int, percent: int) -> None:
    """Of ten places four fifths leave two, though 10 * (1 - 0.8) is below 2 for the processor."""
    reserved = Reserved(interactive=percent / 100, normal=0)
    places = places_of(Options(in_flight_per_worker=every, reserved=reserved), ALL)
    assert places is not None
    assert places[1] == max(1, every * (100 - percent) // 100)


def test_lower_classes_leave_room_together() -> None:
    """Bulk fills its part, normal what the two may have, interactive all. Where a class finds room, higher ones do."""
    worker = Worker("a", "10.0.0.1", 8000)
    places = (4, 3, 2)
    taken = []
    for priority in (BULK, NORMAL, INTERACTIVE):
        while has_place(worker, places, priority):
            worker.lease(priority=priority)
            taken.append(priority)
            assert not has_place(worker, places, priority) or all(
                has_place(worker, places, higher) for higher in Priority if higher <= priority
            )
    assert taken == [BULK, BULK, NORMAL, INTERACTIVE]
