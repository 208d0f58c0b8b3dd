"""A listing is judged before anything is fetched."""

import hashlib
import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_cache.errors import IntegrityError
from model_cache.manifest.listing import ListedFile, accept, missing_from, name_collisions
from model_cache.manifest.manifest import INDEX, Manifest

HASH = "ab" * 32


def listing(*more: ListedFile) -> list[ListedFile]:
    """A good listing, and *more*."""
    return [ListedFile("config.json", 2, HASH), ListedFile("model.safetensors", 5, HASH), *more]


def from_listing(listed: Iterable[ListedFile]) -> Manifest:
    """What is fetched of a listing under a card that trusts no code."""
    return accept(listed, trusts_code=False).manifest


def refusal(listed: Iterable[ListedFile]) -> str:
    """Why the listing is refused."""
    with pytest.raises(IntegrityError) as caught:
        from_listing(listed)
    return str(caught.value)


def test_files_are_sorted_and_hashes_lower_case() -> None:
    """The order and the case that the hub happens to use do not change the manifest."""
    shouting = [file._replace(sha256=HASH.upper()) for file in reversed(listing())]

    assert from_listing(shouting) == from_listing(listing())


def test_digest_is_of_the_canonical_lines() -> None:
    """The digest is the sha256 of path NUL size NUL sha256 newline, by path."""
    text = f"config.json\0002\0{HASH}\nmodel.safetensors\0005\0{HASH}\n"

    assert from_listing(listing()).digest == hashlib.sha256(text.encode()).hexdigest()


def test_total_bytes_counts_every_file() -> None:
    """The size of the snapshot is the sum of its files."""
    assert from_listing(listing()).total_bytes == 7


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        (".", "'.'"),
        ("..", "'..'"),
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("./x", "'.'"),
        ("a//x", "empty"),
        ("a/", "empty"),
        ("/etc/passwd", "absolute"),
        ("a\\b", "backslash"),
        ("C:\\x", "backslash"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\ud800", "Unicode"),
        ("x" * 225, "over 224 bytes"),
        ("模" * 75, "over 224 bytes"),
        ("/".join(["x" * 200] * 21), "over 2,048 bytes"),
        ("/".join("x" * 65), "over 64 parts"),
        ("READY.json", "reserved"),
        ("ready.JSON", "reserved"),
        ("READY.json/x", "reserved"),
        ("config.json", "twice"),
        ("config.json/x", "both a file and the directory"),
    ],
)
def test_an_unsafe_path_is_refused(path: str, reason: str) -> None:
    """A path that could leave the directory, or become another file, stops the run and is quoted."""
    assert reason in refusal(listing(ListedFile(path, 1, HASH)))


@pytest.mark.parametrize("other", ["CONFIG.json", "Model.safetensors", "Config.json/x"])
def test_names_that_differ_in_case_only_are_right(other: str) -> None:
    """On a file system that tells case apart; which are one elsewhere is said."""
    manifest = from_listing(listing(ListedFile(other, 1, HASH)))
    assert other in [file.path for file in manifest.files]
    assert len(list(name_collisions(file.path for file in manifest.files))) == 1


def test_names_that_differ_in_normal_form_only_are_right() -> None:
    """The composed and the decomposed é are one name on some file systems alone."""
    pair = ("caf\u00e9", "cafe\u0301")
    manifest = from_listing(listing(*(ListedFile(name, 1, HASH) for name in pair)))
    assert [fault for fault in name_collisions(file.path for file in manifest.files) if "one file" in fault]


def test_what_is_empty_has_a_known_hash() -> None:
    """A hub need not list it."""
    manifest = from_listing(listing(ListedFile("empty.txt", 0, None)))
    assert manifest.files[1].sha256 == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    "names",
    [
        ["model-00001-of-00002.safetensors"],
        ["model-00002-of-00002.safetensors"],
        ["a/m-1-of-000163.safetensors", "a/m-163-of-000163.safetensors"],
        ["model-00000-of-00002.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.json"],
        ["model-00001-of-00002.safetensors", "model-00009-of-00002.safetensors"],
        ["model-1-of-999999999.safetensors"],
    ],
)
def test_names_that_say_of_how_many_must_be_whole(names: list[str]) -> None:
    """A set with a gap is refused, by the name of the first that is missing."""
    assert "is missing, and others of its set are there" in refusal(
        listing(*(ListedFile(name, 1, HASH) for name in names))
    )


@pytest.mark.parametrize("first", [0, 1])
def test_whole_sets_are_right(first: int) -> None:
    """Counted from 0 or from 1, whatever the number of digits."""
    names = [f"x/model-{number:05}-of-{4:06}.safetensors" for number in range(first, first + 4)]
    assert len(from_listing(listing(*(ListedFile(name, 1, HASH) for name in names))).files) == 6


@pytest.mark.parametrize(
    "name",
    [
        "docs/page-2-of-5.png",
        "fig-3-of-7.png",
        "top-10-of-2024.md",
        "x-1-of-0.txt",
        "train-00003-of-00100.parquet",
        "model-00001-of-00002.json",
        "top-10-of-5.safetensors",
        "x-1-of-0.safetensors",
    ],
)
def test_other_names_of_that_form_are_right(name: str) -> None:
    """What vLLM does not load need not be whole, and 10 of 5 is no part of a set."""
    assert len(from_listing(listing(ListedFile(name, 1, HASH))).files) == 3


def test_a_listing_that_is_far_too_long_costs_no_time() -> None:
    """A million files, a path of 200 kB, or many deep ones: refused at once."""
    million = (ListedFile(f"{number}.json", 1, HASH) for number in range(1_000_000))
    deep = [ListedFile("/".join([str(number), *"abcdefgh" * 7]), 1, HASH) for number in range(20_000)]
    begin = time.process_time()
    assert "50,000 files" in refusal(itertools.chain(listing(), million))
    refused = refusal(listing(ListedFile("a/" * 100_000 + "x", 1, HASH)))
    assert ("2,048 bytes" in refused, len(refused) < 1000) == (True, True)
    assert len(from_listing(listing(*deep)).files) == 20_002
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("sha256", [None, "", "ab" * 31, "ab" * 33, "zz" * 32, HASH + "\n"])
def test_a_file_that_cannot_be_verified_is_refused(sha256: str | None) -> None:
    """Every file needs a sha256 of 64 hex digits."""
    assert "'x' has no sha256" in refusal(listing(ListedFile("x", 1, sha256)))


def test_a_negative_size_is_refused() -> None:
    """A size below zero would spoil every sum."""
    assert "size -1" in refusal(listing(ListedFile("x", -1, HASH)))


@pytest.mark.parametrize(
    "listed", [(None, 1, HASH), (7, 1, HASH), ("x", "1", HASH), ("x", True, HASH), ("x", 1, 7)]
)
def test_what_is_no_file_at_all_is_refused(listed: tuple[Any, ...]) -> None:
    """A path that is no text, a size that is no number: whatever JSON can hold."""
    assert "is of the wrong type" in refusal(listing(ListedFile(*listed)))


def test_an_empty_listing_is_refused() -> None:
    """A hub that answers with nothing has not served a model."""
    assert "no files" in refusal([])


@pytest.mark.parametrize(("kept", "missing"), [(0, "*.safetensors"), (1, "config.json")])
def test_a_listing_that_is_no_model_is_refused(kept: int, missing: str) -> None:
    """A model has a config.json and at least one safetensors file."""
    assert missing in refusal([listing()[kept]])


@given(st.text())
def test_an_accepted_path_stays_inside(path: str) -> None:
    """Whatever text a hub sends, an accepted path has only plain parts."""
    try:
        manifest = from_listing(listing(ListedFile(path, 1, HASH)))
    except IntegrityError:
        return
    parts = next(file.path for file in manifest.files if file.path == path).split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not set("\0\\") & set(path)


def sharded(*shards: str) -> bytes:
    """A shard index over *shards*."""
    return json.dumps({"weight_map": {f"layer.{i}": shard for i, shard in enumerate(shards)}}).encode()


def test_listed_shards_pass() -> None:
    """An index whose shards are all listed raises nothing."""
    manifest = from_listing(listing(ListedFile(INDEX, 3, HASH)))

    assert manifest.index is not None
    manifest.check_shards(sharded("model.safetensors"))


def test_a_missing_shard_is_named() -> None:
    """A shard that the hub does not list makes the model incomplete."""
    with pytest.raises(IntegrityError, match=r"gone-1, gone-2, gone-3 and 1 more"):
        from_listing(listing()).check_shards(
            sharded("model.safetensors", *(f"gone-{i}" for i in range(1, 5)))
        )


@pytest.mark.parametrize(
    "index", [b"", b"\xff", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": []}}']
)
def test_an_unreadable_index_is_refused(index: bytes) -> None:
    """An index without a weight map says nothing about the shards."""
    with pytest.raises(IntegrityError, match="weight_map"):
        Manifest(()).check_shards(index)


@pytest.mark.parametrize(
    "path", ["pytorch_model.bin", "a/training_args.BIN", "x.pt", "x.pth", "x.pkl", "x.ckpt"]
)
@pytest.mark.parametrize("trusts_code", [False, True])
def test_pickles_are_left_out(path: str, trusts_code: bool) -> None:
    """Loading one runs whatever it says: it is never fetched, not even under a card that trusts code."""
    accepted = accept(listing(ListedFile(path, 3, HASH)), trusts_code=trusts_code)

    assert accepted.manifest == from_listing(listing())
    assert accepted.left_out == (path,)


@pytest.mark.parametrize("path", ["modeling_tiny.py", "sub/x.PY", "fast.so"])
def test_code_is_fetched_only_where_the_card_trusts_it(path: str) -> None:
    """It is told either way."""
    code = ListedFile(path, 3, HASH)
    refused = accept(listing(code), trusts_code=False)
    trusted = accept(listing(code), trusts_code=True)

    assert (refused.left_out, refused.code) == ((path,), [])
    assert trusted.left_out == ()
    assert [file.path for file in trusted.code] == [path]


def test_pickles_alone_are_no_model() -> None:
    """What is left of such a repository is refused."""
    assert "safetensors" in refusal([ListedFile("config.json", 2, HASH), ListedFile("model.bin", 5, HASH)])


@pytest.mark.parametrize("wrong", [["x"], {}, None, "5", 5.0, True])
@pytest.mark.parametrize("field", ["path", "size", "sha256"])
def test_a_listed_file_of_a_wrong_type_counts_as_missing(field: str, wrong: Any) -> None:
    """Whatever a hub answers, no exception but a refusal: the sizes of some cannot even be hashed."""
    good = ListedFile("model.safetensors", 5, HASH)
    manifest = from_listing(listing())
    assert missing_from(listing(), manifest) == []
    assert missing_from([listing()[0], good._replace(**{field: wrong})], manifest) == [
        file for file in manifest.files if file.path == good.path
    ]
