"""The models file: what it says, what is made of it, and what the operator is told when it is wrong."""

import re
from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config.catalog import Card, Catalog, group_by_name, load_catalog
from gateway.config.model_options import Alias, Deadlines, Models, Options, Queue, Reserved, load_models
from gateway.config.policies import POLICIES, LeastInFlight, PowerOfTwo, PrefixAffinity, Session
from gateway.config.settings import Settings

ROOT = Path(__file__).resolve().parents[4]
CARDS = (
    Card("x8", ("big", "x8"), "o/x8"),
    Card("x16", ("big", "x16"), "o/x16"),
    Card("s", ("small",), "o/s"),
)
CATALOG = Catalog(CARDS, group_by_name(CARDS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def load(path: Path, text: str, catalog: Catalog = CATALOG) -> Models:
    path.write_text(text)
    return load_models(Settings(models_file=path, first_byte_timeout_s=600), catalog)


def test_without_a_file_every_model_has_the_defaults() -> None:
    """The settings' own deadline is the default's."""
    models = load_models(Settings(models_file=None, first_byte_timeout_s=7), CATALOG)
    assert set(models.options) == {"big", "x8", "x16", "small"}
    assert set(map(repr, models.options.values())) == {repr(Options(deadlines=Deadlines(first_byte_s=7)))}
    assert models.aliases == {}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "defaults: {}", "models: {small: {}}"])
def test_an_empty_file_changes_nothing(path: Path, text: str) -> None:
    """Every part of the file is optional."""
    assert load(path, text) == load_models(Settings(models_file=None, first_byte_timeout_s=600), CATALOG)


def test_what_a_model_says_goes_before_the_defaults(path: Path) -> None:
    """A figure of its own leaves the others as the defaults, or the settings, have them."""
    options = load(
        path,
        "defaults: {policy: power_of_two, deadlines: {idle_s: 30}, queue: {most: 8, wait_s: 5}}\n"
        "models: {small: {deadlines: {total_s: 60}, queue: {most: 0}, in_flight_per_worker: 4}}\n",
    ).options
    assert options["big"] == Options(
        policy=PowerOfTwo(), deadlines=Deadlines(idle_s=30), queue=Queue(most=8, wait_s=5)
    )
    assert options["small"] == Options(
        policy=PowerOfTwo(),
        deadlines=Deadlines(first_byte_s=600, idle_s=30, total_s=60),
        queue=Queue(most=0, wait_s=5),
        in_flight_per_worker=4,
    )


def test_each_share_that_is_reserved_is_set_by_itself(path: Path) -> None:
    """A model's own leaves the other as the defaults have it."""
    text = "defaults: {reserved: {normal: 0}}\nmodels: {small: {reserved: {interactive: 0.5}}}"
    options = load(path, text).options
    assert options["small"].reserved == Reserved(interactive=0.5, normal=0)
    assert options["big"].reserved == Reserved(interactive=0.25, normal=0)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("form", ["{}", "{{{}: {{}}}}", "{{{}: }}"])
def test_every_policy_can_be_named(path: Path, name: str, form: str) -> None:
    """Alone, or with settings, which may be empty."""
    options = load(path, f"models: {{small: {{policy: {form.format(name)}}}}}").options
    assert options["small"].policy == POLICIES[name]()
    assert options["big"].policy == LeastInFlight()


def test_policies_have_settings(path: Path) -> None:
    """A policy of the model replaces that of the defaults as a whole."""
    options = load(
        path,
        "defaults: {policy: {prefix_affinity: {block_bytes: 512, ttl_s: 60}}}\n"
        "models: {small: {policy: {session: {header: x-chat}}}}\n",
    ).options
    assert options["big"].policy == PrefixAffinity(block_bytes=512, ttl_s=60)
    assert options["small"].policy == Session(header="x-chat")


def test_aliases_are_listed_with_their_models(path: Path) -> None:
    """An alias is there when its model is."""
    models = load(path, "aliases: {fast: {model: small}, deep: {model: big, reasoning: none}}")
    assert models.listed(["small"]) == ["small", "fast"]
    assert models.listed(["small", "big"]) == ["small", "big", "fast", "deep"]
    assert models.aliases["deep"] == Alias(model="big", reasoning="none")
    assert models.aliases["fast"].reasoning == "both"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {huge: {}}", "models.huge: no card serves it; it must be one of big, x8, x16, small"),
        ("models: {a: {}}\naliases: {a: {model: big}}", "models.a: is an alias; set options of big"),
        ("models: {big: {split: {x8: 1}}}", "models.big.split: x16 serves this model too; give it a weight"),
        ("models: {big: {split: {x8: 1, x16: 0, s: 1}}}", "models.big.split: s does not serve this model"),
        ("models: {big: {split: {x8: 0, x16: 0}}}", "models.big.split: no weight is above 0"),
        ("models: {big: {split: {x8: -1, x16: 1}}}", "models.big.split.x8: .*greater.*, not -1"),
        ("models: {big: {split: {x8: .inf, x16: 1}}}", "models.big.split.x8: .*finite"),
        ("defaults: {split: {x8: 1}}", "defaults.split is no key that is known here"),
        (
            "models: {big: {polcy: session}}",
            "models.big.polcy is no key that is known here; see docs/configur",
        ),
        (
            "models: {big: {policy: fastest}}",
            "models.big.policy: must be one of least_in_flight, .*'fastest'",
        ),
        ("defaults: {policy: {a: {}, b: {}}}", "defaults.policy: must be one of least_in_flight"),
        ("defaults: {policy: {session: 3}}", "defaults.policy: the settings of session are a mapping"),
        (
            "defaults: {policy: {session: {name: x}}}",
            "defaults.policy: the settings of session are a mapping",
        ),
        ("defaults: {policy: {session: {header: X Y}}}", "defaults.policy.session.header: .*'X Y'"),
        (
            "defaults: {policy: {prefix_affinity: {block_bytes: 1}}}",
            "defaults.policy.prefix_affinity.block_byt",
        ),
        ("defaults: {deadlines: {idle_s: 0}}", "defaults.deadlines.idle_s: .*, not 0"),
        ("defaults: {deadlines: {idle_s: '5'}}", "defaults.deadlines.idle_s: .*, not '5'"),
        ("defaults: {queue: {most: true}}", "defaults.queue.most: .*, not True"),
        ("defaults: {in_flight_per_worker: 0}", "defaults.in_flight_per_worker: .*, not 0"),
        ("defaults: {reserved: {interactive: 1}}", "defaults.reserved.interactive: .*less than 1, not 1"),
        ("defaults: {reserved: {normal: -0.1}}", "defaults.reserved.normal: .*, not -0.1"),
        ("defaults: {reserved: {bulk: 0.1}}", "defaults.reserved.bulk is no key that is known here"),
        ("aliases: {small: {model: big}}", "aliases.small: is the name of a model; give the alias a name"),
        ("aliases: {a: {model: b}, b: {model: big}}", "aliases.a.model: b is an alias itself; name big"),
        ("aliases: {a: {model: a}}", "aliases.a.model: a is an alias itself"),
        ("aliases: {a: {model: huge}}", "aliases.a.model: no card serves huge; it must be one of big"),
        ("aliases: {a: {}}", "aliases.a.model: Field required"),
        ("aliases: {'': {model: big}}", "aliases..*at least 1 character"),
        ("aliases: {a: {model: big, force: {model: x8}}}", "aliases.a: `model` is the client's to say"),
        ("aliases: {a: {model: big, default: {stream: true}}}", "aliases.a: `stream` is the client's to say"),
        (
            "aliases: {a: {model: big, force: {n: 1}, default: {n: 1}}}",
            "aliases.a.default.n: is forced as well",
        ),
        ("aliases: {a: {model: big, force: {x: 2026-01-01}}}", "aliases.a.force.x.*: .*valid JSON"),
        ("aliases: {a: {model: big, reasoning: some}}", "aliases.a.reasoning: .*'both', .*, not 'some'"),
        ("aliases: {a: {model: big}, a: {model: small}}", "is not valid YAML: 'a' stands twice .*line 1"),
        ("models: [big]", "models: .*"),
        ("[]", "the file: .*"),
        ("a: [", "is not valid YAML: .*line 1"),
    ],
)
def test_a_wrong_file_names_key_and_remedy(path: Path, text: str, message: str) -> None:
    """One line: the file, the key, what is wrong and what to do."""
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}:? {message}") as caught:
        load(path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_names_its_variable(tmp_path: Path) -> None:
    """Missing, or not text."""
    (tmp_path / "binary").write_bytes(b"\xff")
    for wrong in (tmp_path / "nowhere", tmp_path / "binary", tmp_path):
        with pytest.raises(
            ConfigError, match=f"^GATEWAY_MODELS_FILE={re.escape(str(wrong))} cannot be read: "
        ):
            load_models(Settings(models_file=wrong), CATALOG)


def test_the_documented_example_is_a_models_file(path: Path) -> None:
    """The example of docs/configuration.md goes with the repository's own cards, and uses every key."""
    page = (ROOT / "docs/configuration.md").read_text()
    example = page.split("## The models file", 1)[1].split("```yaml\n", 1)[1].split("```", 1)[0]
    models = load(path, example, load_catalog(ROOT / "docker"))
    assert models.aliases
    keys = {
        *Options.model_fields,
        *Deadlines.model_fields,
        *Queue.model_fields,
        *Reserved.model_fields,
        *Alias.model_fields,
    }
    assert {key for key in keys if f"{key}:" not in example} == set()


def test_the_page_names_every_policy_and_its_settings() -> None:
    """docs/configuration.md has a row for each policy, with each of its settings and their defaults."""
    page = (ROOT / "docs/configuration.md").read_text().split("## The models file", 1)[1]
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for name, kind in POLICIES.items():
        for setting, field in kind.model_fields.items():
            assert setting == "name" or f"`{setting}: {field.default}`" in rows[name]
