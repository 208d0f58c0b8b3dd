"""The lease that a request holds on a worker."""

from gateway.workers import Worker


def test_a_lease_counts_until_it_ends() -> None:
    """A request is in flight from the lease to its end."""
    one = Worker("a", "10.0.0.1", 8000)
    first, second = one.lease(), one.lease()
    assert one.in_flight == 2
    first.end()
    second.end()
    assert one.in_flight == 0


def test_a_worker_on_trial_counts_its_trials() -> None:
    """A lease that began on trial tells its end to whoever counts, though the trial be over by then."""
    one, told = Worker("a", "10.0.0.1", 8000), []
    one.on_trial = lambda worker, change: told.append((worker, change))
    lease = one.lease()
    one.on_trial = None
    lease.end()
    assert told == [(one, 1), (one, -1)]
