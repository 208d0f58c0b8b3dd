"""The balancing policies and their settings. Values only; balancing/selection.py decides by them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class StrictModel(BaseModel):
    """Base of what operators write: unknown keys and wrong types are refused, and values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LeastInFlight(StrictModel):
    """Choose the least loaded worker."""

    name: Literal["least_in_flight"] = "least_in_flight"


class PowerOfTwo(StrictModel):
    """Choose the less loaded of two workers drawn at random."""

    name: Literal["power_of_two"] = "power_of_two"


class RoundRobin(StrictModel):
    """Choose the workers one after another."""

    name: Literal["round_robin"] = "round_robin"


class Session(StrictModel):
    """Choose the same worker for the same session, whatever its load; without a session, the least loaded one."""

    name: Literal["session"] = "session"
    header: str = Field(default="x-session-id", pattern=r"^[a-z0-9-]+$")


class PrefixAffinity(StrictModel):
    """Choose the worker that has seen most of the prompt's beginning, unless it is overloaded."""

    name: Literal["prefix_affinity"] = "prefix_affinity"
    block_bytes: int = Field(default=1024, ge=64, le=65536)
    blocks: int = Field(default=16, ge=1, le=64)
    entries: int = Field(default=32768, ge=1, le=1 << 20)
    ttl_s: float = Field(default=600.0, gt=0)
    slack_requests: float = Field(default=8.0, ge=0)
    slack_ratio: float = Field(default=0.5, ge=0)


POLICIES = {
    kind.model_fields["name"].default: kind
    for kind in (LeastInFlight, PowerOfTwo, RoundRobin, Session, PrefixAffinity)
}


def normalized(value: object) -> object:
    """Turn `name` and `{name: settings}`, as operators write a policy, into the tagged form for pydantic to read."""
    if isinstance(value, StrictModel):  # from code, not from a file
        return value
    name, settings = value, None
    if isinstance(value, Mapping) and len(value) == 1:
        name, settings = next(iter(value.items()))
    if name not in tuple(POLICIES):  # a tuple: a name that is a list cannot be looked up in a dict
        raise ValueError(f"must be one of {', '.join(POLICIES)}, or one of them with its settings")
    if not isinstance(settings, Mapping | None) or "name" in (settings or {}):  # it would be lost below
        raise ValueError(f"the settings of {name} are a mapping")
    return {**(settings or {}), "name": name}


AnyPolicy = Annotated[
    LeastInFlight | PowerOfTwo | RoundRobin | Session | PrefixAffinity,
    Field(discriminator="name"),
    BeforeValidator(normalized),
]
