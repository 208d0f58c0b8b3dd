"""What a new content of the key file has changed, by the names of the keys, for the audit log. Pure.

Of a key only its name is told, and which of its rights changed: never a key, and no digest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from gateway.config.api_keys import ApiKey

NO_RIGHTS: Final = ("name", "label", "edition", "revoked", "salt")
RIGHTS: Final = [one.name for one in fields(ApiKey) if one.name not in NO_RIGHTS]
Keys = Mapping[str, ApiKey]  # by digest


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What has become of the key `name`. what: added, removed, revoked, restored (no longer revoked), replaced (its
    digests are others) or changed, in which case `rights` names those that are others."""

    name: str
    what: str
    rights: tuple[str, ...] = ()


def changes(before: Keys, after: Keys) -> list[KeyChange]:
    """Return the changes from `before` to `after`, in the order of the names."""
    old, new = by_name(before), by_name(after)
    return [
        change for name in sorted({*old, *new}) for change in changes_of(name, old.get(name), new.get(name))
    ]


def by_name(keys: Keys) -> dict[str, dict[str, ApiKey]]:
    """Return the keys of each name by digest: a name has two while its key is replaced, lines without a name share
    one."""
    found: dict[str, dict[str, ApiKey]] = {}
    for digest, key in keys.items():
        found.setdefault(key.name, {})[digest] = key
    return found


def changes_of(name: str, old: Keys | None, new: Keys | None) -> Iterator[KeyChange]:
    """Yield the changes of one name. None: the file does not have it."""
    if old is None or new is None:
        yield KeyChange(name, "added" if old is None else "removed")
        return
    if old.keys() != new.keys():
        yield KeyChange(name, "replaced")
    was, now = next(iter(old.values())), next(iter(new.values()))
    if (was.revoked is None) != (now.revoked is None):
        yield KeyChange(name, "restored" if now.revoked is None else "revoked")
    rights = tuple(right for right in RIGHTS if getattr(was, right) != getattr(now, right))
    if rights:
        yield KeyChange(name, "changed", rights)
