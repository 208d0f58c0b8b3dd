"""What holds for every test: property tests try the same examples each time, and a busy machine fails none of them."""

from hypothesis import settings

settings.register_profile("octet", derandomize=True, database=None, deadline=None)
settings.load_profile("octet")
