"""Programs on clients that people use, and the versions of them; tests/e2e/test_clients.py runs them."""
