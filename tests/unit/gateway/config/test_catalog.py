"""Cards: what they say, and what the operator is told when they say it wrongly."""

from pathlib import Path

import pytest

from gateway.api.errors import ConfigError
from gateway.config.catalog import Card, load_catalog, parse_env

ENV = 'WEIGHTS_REPO=o/a\nSERVED_MODEL_NAMES="alpha alpha-chat"\n'


def declare(root: Path, slug: str, env: str = ENV, card: str | None = None) -> None:
    """Writes one slug's directory."""
    (root / slug).mkdir()
    (root / slug / "model.env").write_text(env)
    (root / slug / "card.yaml").write_text(f"slug: {slug}\n" if card is None else card)


def test_a_card_is_its_directory(tmp_path: Path) -> None:
    """Slug, names and weights come from the directory, its model.env and its card.yaml."""
    declare(tmp_path, "alpha")
    assert load_catalog(tmp_path).cards == (Card("alpha", ("alpha", "alpha-chat"), "o/a"),)
    assert load_catalog(tmp_path).cards[0].start_command == "docker compose up -d alpha"


def test_a_card_may_limit_standing_still(tmp_path: Path) -> None:
    """Seconds without progress until a worker is suspect, and down; what is not said is 60 and 180."""
    declare(tmp_path, "alpha", card="slug: alpha\nprogress: {suspect_s: 90}\n")
    declare(tmp_path, "beta", card="slug: beta\nprogress: {suspect_s: 200, down_s: 1000.5}\n")
    cards = load_catalog(tmp_path).cards
    assert [(card.suspect_s, card.down_s) for card in cards] == [(90.0, 180.0), (200.0, 1000.5)]


def test_some_parsers_are_not_asked_for_usage_in_each_chunk(tmp_path: Path) -> None:
    """Those with which vLLM counts all tokens anew each time; one slug of a name is enough."""
    declare(tmp_path, "alpha", card="slug: alpha\nserving: {parsers: {reasoning: deepseek_r1}}\n")
    declare(tmp_path, "beta", "WEIGHTS_REPO=o/b\nSERVED_MODEL_NAMES='beta alpha'\n",
            card="slug: beta\nserving: {parsers: {reasoning: qwen3, tools: hermes}}\n")  # fmt: skip
    assert load_catalog(tmp_path).counting_anew == {"alpha", "alpha-chat"}


def test_a_card_tells_of_images_and_media(tmp_path: Path) -> None:
    """Whether large bodies make sense, and from where media may be fetched."""
    declare(
        tmp_path,
        "alpha",
        card="slug: alpha\nserving: {images: {per_prompt: 8}, media_domains: [media.example]}\n",
    )
    (card,) = load_catalog(tmp_path).cards
    assert (card.images, card.media_domains) == (True, frozenset({"media.example"}))


def test_a_card_tells_of_context_images_and_parsers(tmp_path: Path) -> None:
    """What clients are told of a model; nothing of it must be there."""
    serving = "serving: {context: 8192, parsers: {reasoning: qwen3, tools: hermes}, images: {per_prompt: 8}}"
    declare(tmp_path, "alpha", card=f"slug: alpha\n{serving}\n")
    declare(tmp_path, "beta")
    alpha, beta = load_catalog(tmp_path).cards
    assert (alpha.context, alpha.images_per_prompt, alpha.reasons, alpha.owner) == (8192, 8, True, "o")
    assert alpha.parsers == {"reasoning": "qwen3", "tools": "hermes"}
    assert (beta.context, beta.images, beta.images_per_prompt, beta.parsers) == (None, False, None, {})


@pytest.mark.parametrize(
    "serving", ["context: 0", "context: many", "context: true", "images: {per_prompt: -1}"]
)
def test_a_count_that_is_none_is_named(tmp_path: Path, serving: str) -> None:
    """File, fact and value are in the sentence."""
    declare(tmp_path, "alpha", card=f"slug: alpha\nserving: {{{serving}}}\n")
    with pytest.raises(ConfigError, match=r"alpha/card.yaml: (context|per_prompt) is .*whole number above 0"):
        load_catalog(tmp_path)


BOMBS = {
    "deep": "slug: alpha\nx: " + "[" * 5000,
    "aliases": "slug: alpha\na: &a [x, x]\n"
    + "".join(f"{one}: &{one} [*{two}, *{two}]\n" for one, two in zip("bcd", "abc", strict=True)),
    "digits": "slug: alpha\nserving: {context: " + "9" * 5000 + "}",
    "digits of a limit": "slug: alpha\nprogress: {down_s: " + "9" * 400 + "}",
    "a limit without end": "slug: alpha\nprogress: {down_s: .inf}",
    "a date that is none": "slug: 2026-99-99",
    "no number": 'slug: !!int ""',
    "no truth value": "slug: !!bool x",
    "no time": "slug: !!timestamp x",
    "large": "slug: alpha\nx: " + "x" * 300_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_card_that_asks_for_too_much_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """Nesting, aliases, digits, size: whatever is in it, the operator reads which file is wrong, and soon."""
    declare(tmp_path, "alpha", card=BOMBS[name])
    with pytest.raises(ConfigError, match=r"alpha/card\.yaml") as caught:
        load_catalog(tmp_path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_name_of_two_slugs_is_one_pool(tmp_path: Path) -> None:
    """A name that two slugs serve resolves to both cards, another name to its own alone."""
    declare(tmp_path, "a", "WEIGHTS_REPO=o/a\nSERVED_MODEL_NAMES=shared a\n")
    declare(tmp_path, "b", "WEIGHTS_REPO=o/b\nSERVED_MODEL_NAMES=shared\n")
    catalog = load_catalog(tmp_path)
    assert [card.slug for card in catalog.resolve("shared")] == ["a", "b"]
    assert [card.slug for card in catalog.resolve("a")] == ["a"]
    assert catalog.resolve("c") == ()


def test_directories_without_a_card_are_no_slugs(tmp_path: Path) -> None:
    """docker/launcher and the like are passed over."""
    declare(tmp_path, "alpha")
    (tmp_path / "launcher").mkdir()
    assert len(load_catalog(tmp_path).cards) == 1


@pytest.mark.parametrize(
    ("env", "card", "message"),
    [
        ("WEIGHTS_REPO=o/a\n", None, r"alpha/model.env: SERVED_MODEL_NAMES is missing; docker/README.md"),
        ("SERVED_MODEL_NAMES=a\nWEIGHTS_REPO=\n", None, r"alpha/model.env: WEIGHTS_REPO is missing"),
        ("WEIGHTS_REPO\n", None, r"alpha/model.env:1: 'WEIGHTS_REPO' is not KEY=value"),
        ('A="b\n', None, r"alpha/model.env:1: .* is not KEY=value"),
        (ENV, "slug: beta\n", r"alpha/card.yaml: slug is 'beta'; set it to the directory's name, 'alpha'"),
        (ENV, "gpus: 8\n", r"alpha/card.yaml: slug is None; set it"),
        (ENV, "slug: [a\n", r"alpha/card.yaml is not valid YAML: .*line 2"),
        (ENV, "- slug\n", r"alpha/card.yaml must be a mapping"),
        (ENV, "", r"alpha/card.yaml must be a mapping"),
        (ENV, "slug: alpha\nprogress: 60\n", r"alpha/card.yaml: progress takes suspect_s and down_s"),
        (
            ENV,
            "slug: alpha\nprogress: {after_s: 60}\n",
            r"alpha/card.yaml: progress takes suspect_s and down_s",
        ),
        (ENV, "slug: alpha\nprogress: {suspect_s: 200}\n", r"alpha/card.yaml: .*; it has 200 and 180.0"),
        (ENV, "slug: alpha\nprogress: {down_s: soon}\n", r"alpha/card.yaml: .*; it has 60.0 and 'soon'"),
        (ENV, "slug: alpha\nprogress: {suspect_s: true}\n", r"alpha/card.yaml: .*; it has True and"),
    ],
)
def test_a_wrong_card_names_file_and_fault(tmp_path: Path, env: str, card: str | None, message: str) -> None:
    """The message is one line that names the file and what it lacks."""
    declare(tmp_path, "alpha", env, card)
    with pytest.raises(ConfigError, match=message) as caught:
        load_catalog(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_without_cards_says_what_to_mount(tmp_path: Path) -> None:
    """An empty or missing directory is most likely a mount that is missing."""
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"mount the repository's docker/ there"):
            load_catalog(directory)


def test_env_files_read_as_compose_reads_them() -> None:
    """Comments, blank lines and quotes are not part of a value."""
    text = "# a comment\n\nA=1\nB=\"two words\" # why\nC='x'\n D = 4 \nE=a=b\n"
    assert parse_env(text, Path("model.env")) == {"A": "1", "B": "two words", "C": "x", "D": "4", "E": "a=b"}
