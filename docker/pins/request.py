"""What the operator asked for: a slug, and one commit or one version of vLLM."""

from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from pin import COMMIT
from pins.errors import RequestError, TooOldError


@dataclass(frozen=True)
class Request:
    """One of `commit` and `version` is empty."""

    slug: str
    commit: str
    version: str

    @classmethod
    def of(cls, slug: str, commit: str, version: str) -> "Request":
        """Raises RequestError unless exactly one of the two is given, and well formed."""
        if bool(commit) == bool(version):
            raise RequestError(
                "give one of COMMIT=<40 hexadecimal digits> and VERSION=x.y.z, not both or neither"
            )
        if commit and not COMMIT.fullmatch(commit):
            raise RequestError(
                f"COMMIT={commit} is not a full commit: it must be 40 lower-case hexadecimal digits"
            )
        if version:
            _version(version)
        return cls(slug, commit, version)

    @property
    def folder(self) -> str:
        """Where the nightly index keeps this build."""
        return self.commit or self.version

    def refuse_below(self, minimum: str, version: str) -> None:
        """Raises TooOldError if `version` is older than the card allows."""
        if _version(version) < _version(minimum):
            raise TooOldError(
                f"{version} is below {self.slug}'s vllm_minimum {minimum}: older ones lack security fixes"
            )


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise RequestError(f"VERSION={text} is not a version: write it as x.y.z") from None
