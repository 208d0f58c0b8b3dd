"""The lease that a request holds on a worker."""

from gateway.config.api_keys import Priority
from gateway.fleet.workers import PREFILL, Worker


def test_a_lease_counts_until_it_ends() -> None:
    """A request is in flight from the lease to its end."""
    one = Worker("a", "10.0.0.1", 8000)
    first, second = one.lease(), one.lease()
    assert one.in_flight == 2
    first.end()
    second.end()
    assert one.in_flight == 0


def test_a_stream_is_a_burden_until_its_first_token() -> None:
    """From then on it counts like any other request; whenever it ends, nothing of it stays."""
    one = Worker("a", "10.0.0.1", 8000)
    plain, begun, silent = one.lease(), one.lease(streams=True), one.lease(streams=True)
    assert (one.in_flight, one.weighted_in_flight) == (3, 1 + 2 * PREFILL)
    begun.note_first_byte()
    begun.note_first_byte()
    assert one.weighted_in_flight == 2 + PREFILL
    for lease in (plain, begun, silent):
        lease.end()
    assert (one.in_flight, one.weighted_in_flight) == (0, 0)


def test_a_worker_on_trial_counts_its_trials() -> None:
    """A lease that began on trial tells its end to whoever counts, though the trial be over by then."""
    one, told = Worker("a", "10.0.0.1", 8000), []
    one.on_trial = lambda worker, change: told.append((worker, change))
    lease = one.lease()
    one.on_trial = None
    lease.end()
    assert told == [(one, 1), (one, -1)]


def test_lower_classes_are_counted_apart() -> None:
    """Those that are normal or bulk, and those that are bulk."""
    one = Worker("a", "10.0.0.1", 8000)
    leases = [
        one.lease(priority=priority) for priority in (Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE)
    ]
    assert (one.in_flight, one.in_flight_below) == (3, [2, 1])
    for lease in leases:
        lease.end()
    assert (one.in_flight, one.in_flight_below) == (0, [0, 0])
