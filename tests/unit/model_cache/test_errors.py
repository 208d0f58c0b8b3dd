"""Exit codes are an interface: tools decide by them whether to try again."""

from model_cache.errors import JobError


def test_every_error_has_its_own_exit_code() -> None:
    """The codes are those that the documentation promises."""
    codes = {error.__name__: error.exit_code for error in JobError.__subclasses__()}

    assert codes == {
        "ConfigError": 2,
        "RetryableError": 3,
        "IntegrityError": 4,
        "NoSpaceError": 5,
        "AccessError": 6,
    }
