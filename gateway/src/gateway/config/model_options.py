"""Options for each model, and aliases: read once from the operator's GATEWAY_MODELS_FILE, checked against the cards."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, JsonValue, PositiveInt, ValidationError

from gateway.api.errors import ConfigError
from gateway.config import yaml_file
from gateway.config.catalog import Catalog
from gateway.config.policies import AnyPolicy, LeastInFlight, StrictModel
from gateway.config.settings import Settings

Seconds = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
Reasoning = Literal["both", "reasoning", "reasoning_content", "none"]
P = TypeVar("P", bound=StrictModel)

CLIENTS_OWN = ("model", "stream", "stream_options")  # what the client will read follows from these


class Deadlines(StrictModel):
    """Seconds that a request may take: to its first byte, between two chunks, and in all."""

    first_byte_s: Seconds = 600.0
    idle_s: Seconds = 60.0
    total_s: Seconds = 3600.0


class Queue(StrictModel):
    """How many requests may wait for a worker (0: none) and for how many seconds."""

    most: int = Field(default=0, ge=0)
    wait_s: float = Field(default=0.0, ge=0)


class Reserved(StrictModel):
    """Which part of each worker's places (`in_flight_per_worker`) lower classes leave free for a class. It counts while
    the key file has a key of that class."""

    interactive: Share = 0.25
    normal: Share = 0.25


class Defaults(StrictModel):
    """The options of every model that does not set its own."""

    policy: AnyPolicy = LeastInFlight()
    deadlines: Deadlines = Deadlines()
    queue: Queue = Queue()
    in_flight_per_worker: PositiveInt | None = None  # no limit
    reserved: Reserved = Reserved()


class Options(Defaults):
    """The options of one model. `split`: the weight of each slug."""

    split: Mapping[str, Weight] | None = None


class Alias(StrictModel):
    """Another name for a model. `force` replaces the client's parameters, `default` fills in those it left out."""

    model: str
    force: Mapping[str, JsonValue] = {}
    default: Mapping[str, JsonValue] = {}
    reasoning: Reasoning = "both"


class File(StrictModel):
    """The file's contents as written."""

    defaults: Defaults = Defaults()
    models: Mapping[str, Options] = {}
    aliases: Mapping[Name, Alias] = {}


@dataclass(frozen=True, slots=True)
class Models:
    """The options of every served name, and all aliases."""

    options: Mapping[str, Options]
    aliases: Mapping[str, Alias]

    def has(self, name: str) -> bool:
        """Return whether `name` is a model or an alias, which a key may be for."""
        return name in self.options or name in self.aliases

    def model_of(self, name: str) -> str:
        """Return the model behind `name`, for /v1/models: `name` itself unless it is an alias."""
        alias = self.aliases.get(name)
        return name if alias is None else alias.model

    def listed(self, names: Iterable[str]) -> list[str]:
        """Return `names` and the aliases of these models, as /v1/models lists them."""
        listed = list(names)
        return [*listed, *(name for name, alias in self.aliases.items() if alias.model in listed)]


def load_models(settings: Settings, catalog: Catalog) -> Models:
    """Read GATEWAY_MODELS_FILE, if set, at the start. Raises ConfigError with file, key and what to do."""
    path = settings.models_file
    file = File() if path is None else read(path)
    fault = next(faults(file, catalog), None)
    if fault is not None:
        raise ConfigError(f"{path}: {fault}")
    deadlines = Deadlines(
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        total_s=settings.total_timeout_s,
    )
    base = Options(deadlines=deadlines)
    common = over(base, file.defaults)
    options = {name: over(common, file.models.get(name, Options())) for name in catalog.names}
    return Models(options, file.aliases)


def read(path: Path) -> File:
    """Read the file without comparing it with the cards. Raises ConfigError."""
    written = yaml_file.parse(yaml_file.read(path, "GATEWAY_MODELS_FILE"), path, yaml_file.UniqueKeys)
    try:
        return File.model_validate({} if written is None else written)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}; see docs/configuration.md") from error


def first_problem(error: ValidationError) -> str:
    """Return the first fault that pydantic found in the file, in words: its key, what must be there, what is."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{key} is no key that is known here"
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}, not {problem['input']!r:.80}"


def over(base: Options, given: Defaults) -> Options:
    """Return `base` with what the operator wrote in `given` in place: the file's defaults over the settings, then a
    model's own options over these. Groups of values are merged value by value, others replaced."""
    said = {name: getattr(given, name) for name in given.model_fields_set}
    for name in {"deadlines", "queue", "reserved"} & said.keys():
        said[name] = replaced(getattr(base, name), said[name])
    return base.model_copy(update=said)


def replaced(base: P, given: P) -> P:
    """Return `base` with the values that the operator wrote in `given`, without those that `given` has by default."""
    return base.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def faults(file: File, catalog: Catalog) -> Iterator[str]:
    """Yield what in the file does not fit the cards, each as key, fault and remedy. `load_models` refuses the first."""
    for name, options in file.models.items():
        yield from faults_of_model(name, options, file, catalog)
    for name, alias in file.aliases.items():
        yield from faults_of_alias(name, alias, file, catalog)


def faults_of_model(name: str, options: Options, file: File, catalog: Catalog) -> Iterator[str]:
    """Yield what is wrong with `models.<name>`: no such model, or a split that does not fit the model's slugs."""
    slugs = {card.slug for card in catalog.resolve(name)}
    if name in file.aliases:
        yield f"models.{name}: is an alias; set options of {file.aliases[name].model}, which it stands for"
    elif not slugs:
        yield f"models.{name}: no card serves it; it must be one of {', '.join(catalog.names)}"
    elif options.split is not None:
        yield from (f"models.{name}.split: {fault}" for fault in faults_of_split(options.split, slugs))


def faults_of_split(split: Mapping[str, float], slugs: set[str]) -> Iterator[str]:
    """Yield what is wrong with a split: it must give each of the model's `slugs` a weight, one of them above 0."""
    if unknown := split.keys() - slugs:
        yield f"{min(unknown)} does not serve this model; its slugs are {', '.join(sorted(slugs))}"
    if missing := slugs - split.keys():
        yield f"{min(missing)} serves this model too; give it a weight, 0 for no requests"
    if not any(split.values()):
        yield "no weight is above 0; give one slug at least a weight"


def faults_of_alias(name: str, alias: Alias, file: File, catalog: Catalog) -> Iterator[str]:
    """Yield what is wrong with `aliases.<name>`: its name, the model behind it, or a parameter that it may not set."""
    if catalog.resolve(name):
        yield f"aliases.{name}: is the name of a model; give the alias a name that no card serves"
    if alias.model in file.aliases:
        yield f"aliases.{name}.model: {alias.model} is an alias itself; name {file.aliases[alias.model].model}"
    elif not catalog.resolve(alias.model):
        yield f"aliases.{name}.model: no card serves {alias.model}; it must be one of {', '.join(catalog.names)}"
    for key in CLIENTS_OWN:
        if key in alias.force or key in alias.default:
            yield f"aliases.{name}: `{key}` is the client's to say; take it out of force and default"
    for key in alias.force.keys() & alias.default.keys():
        yield f"aliases.{name}.default.{key}: is forced as well; take it out of force or default"
