"""API keys: what a request offers, when a key is accepted, and what its holder is told."""

import pytest

from gateway.config.api_keys import (
    ApiKey,
    Standing,
    hash_key,
    new_key,
    offered,
    why_refused,
    why_unknown,
)

NEW_YEAR = 1798761600.0  # 2027-01-01T00:00:00Z
Header = tuple[bytes, bytes]


def test_new_keys_differ_and_are_long() -> None:
    """A new key has 256 random bits under a prefix that secret scanners can know."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("sk-octet-") and len(key) == len("sk-octet-") + 43 for key in keys)


def test_a_key_may_be_for_all_models_or_some() -> None:
    """Without `models` for all of them, whatever their names."""
    assert ApiKey("a").may_use("anything")
    some = ApiKey("a", models=frozenset({"alpha"}))
    assert [some.may_use(name) for name in ("alpha", "Alpha", "", "beta")] == [True, False, False, False]


@pytest.mark.parametrize(
    ("key", "now", "standing"),
    [
        (ApiKey("a"), 0.0, Standing.VALID),
        (ApiKey("a", expires=NEW_YEAR), NEW_YEAR - 0.001, Standing.VALID),
        (ApiKey("a", expires=NEW_YEAR), NEW_YEAR, Standing.EXPIRED),
        (ApiKey("a", not_before=NEW_YEAR), NEW_YEAR - 0.001, Standing.EARLY),
        (ApiKey("a", not_before=NEW_YEAR), NEW_YEAR, Standing.VALID),
        (ApiKey("a", revoked=NEW_YEAR), 0.0, Standing.REVOKED),
        (ApiKey("a", revoked=NEW_YEAR, expires=1.0), NEW_YEAR, Standing.REVOKED),
        (ApiKey("a", not_before=NEW_YEAR, expires=NEW_YEAR + 1), -1e18, Standing.EARLY),
        (ApiKey("a", not_before=NEW_YEAR, expires=NEW_YEAR + 1), 1e18, Standing.EXPIRED),
    ],
)
def test_when_a_key_is_accepted(key: ApiKey, now: float, standing: Standing) -> None:
    """From `not_before` until `expires`, and never once it is revoked, whatever the clock says."""
    assert key.standing(now) is standing


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (ApiKey("a", expires=NEW_YEAR), "expired at 2027-01-01T00:00:00Z: ask the operator for another one"),
        (ApiKey("a", revoked=NEW_YEAR), "was revoked at 2027-01-01T00:00:00Z: ask the operator for another"),
        (
            ApiKey("a", not_before=2 * NEW_YEAR),
            "is not valid before 2084-01-01T00:00:00Z: send it again then",
        ),
    ],
)
def test_who_holds_a_key_is_told_why_it_is_refused(key: ApiKey, told: str) -> None:
    """With the moment, and what to do."""
    assert f"This API key {told}" in why_refused(key, key.standing(NEW_YEAR))


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([], "No API key was sent: send `Authorization: Bearer <key>`"),
        ([(b"authorization", b"Basic eA==")], "The Authorization header has no API key"),
        ([(b"authorization", b"Bearer ")], "The Authorization header has no API key"),
        ([(b"authorization", b"sk-octet-mine")], "The Authorization header has no API key"),
        ([(b"x-api-key", b" ")], "No API key was sent"),
        (
            [(b"authorization", b"Bearer sk-octet-cut")],
            "This API key is malformed: a whole one has 52 characters",
        ),
        ([(b"authorization", b"Bearer sk-octet-" + b"x" * 43 + b"=")], "This API key is malformed"),
        (
            [(b"authorization", b"Bearer sk-octet-" + b"x" * 43)],
            "This API key is unknown: copy it again, or ask",
        ),
        ([(b"x-api-key", b"\xff\x00")], "This API key is unknown"),
        (
            [(b"authorization", b"Bearer " + b"0f" * 32)],
            "What was sent is the hash of a key: send the key itself",
        ),
        ([(b"x-api-key", b"sha256:" + b"0f" * 32)], "What was sent is the hash of a key"),
    ],
)
def test_why_a_key_is_not_known(headers: list[Header], told: str) -> None:
    """What was sent, or was not, decides what the client is told; it is not repeated."""
    assert why_unknown(offered(headers), headers).startswith(told)


@pytest.mark.parametrize("sent", ["Bearer sk", "bearer sk", "BEARER  sk "])
def test_the_schemes_case_and_spaces_do_not_matter(sent: str) -> None:
    """As RFC 9110 has it for schemes."""
    assert offered([(b"accept", b"*/*"), (b"authorization", sent.encode()), (b"x-api-key", b"two ")]) == [
        b"sk",
        b"two",
    ]


def test_a_hash_is_sha256() -> None:
    """Anybody can make the line of a key with a tool of their own."""
    assert hash_key(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
