"""Amazon 5x5: the published JSON lines, and data of the same kind from raw reviews."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from raw import AMAZON_CATEGORIES, AMAZON_LABELS, module, packed, prepared, published, put, raw_reviews, refused

from ptmt_lightning.data.benchmarks import amazon
from ptmt_lightning.data.benchmarks.amazon import AmazonDataModule

GAMES = "Video_Games.json.gz"
PRODUCTS = [
    {"asin": "xbox", "category": ["Video Games", "Xbox 360", "Games"], "title": "Racing"},
    {"asin": "pc", "category": ["Video Games", " PC "]},
]
# A review has more than 100 words: 101 of four letters, with the spaces between, are 504 characters.
ENOUGH = " ".join(["word"] * 101)


def data(tmp_path: Path, files: dict[str, Any], **changes: Any) -> Any:
    return module(AmazonDataModule, put(tmp_path / "amazon", files), **changes)


def games(reviews: list[dict[str, Any]], products: list[dict[str, Any]] | None = None) -> dict[str, bytes]:
    """Raw files of all domains, one review a label but for video games."""
    return raw_reviews(Video_Games=(reviews, PRODUCTS if products is None else products))


def of_games(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Text and label of the documents on video games."""
    return [(text, path[1]) for text, [path] in content["all"] if path[0] == "video-games"]


# ---- the published JSON lines ----


def test_published_lines_are_read_train_before_test(tmp_path: Path) -> None:
    published_as = data(tmp_path, {**published("amazon", AMAZON_LABELS)})
    content = prepared(published_as)
    assert content["all"] == [
        (f"Number {i} tells of {low} within {top}.", [[top, low]]) for i in range(8) for top, low in AMAZON_LABELS
    ]
    assert content["edges"] == [("ROOT", top) for top in sorted({top for top, _ in AMAZON_LABELS})] + sorted(
        AMAZON_LABELS
    )
    assert content["summary"] == {
        "documents": {"all": 56},
        "mean_characters": pytest.approx(sum(len(text) for text, _ in content["all"]) / 56),
        "form": "amazon_train.jsonl, amazon_test.jsonl",
        "dropped": {},
    }
    assert published_as.taxonomy.level_sizes == (5, 7)


@pytest.mark.parametrize(
    "files",
    [
        {name: content for name, content in raw_reviews().items() if name != GAMES},
        {name: content for name, content in raw_reviews().items() if name != f"meta_{GAMES}"},
        {name: content for name, content in raw_reviews().items() if "Electronics" not in name},
        {**published("amazon", AMAZON_LABELS), **raw_reviews()},
    ],
    ids=["no reviews", "no products", "no domain", "both forms"],
)
def test_parts_of_a_form_and_two_forms_are_refused(files: dict[str, str | bytes], tmp_path: Path) -> None:
    refused(
        data(tmp_path, files),
        f"{tmp_path / 'amazon/raw'}: expected one of: amazon_train.jsonl with amazon_test.jsonl; the raw reviews "
        "Video_Games.json.gz with meta_Video_Games.json.gz, Electronics.json.gz with meta_Electronics.json.gz, ",
        "; found " + ", ".join(sorted(files)[:10]) + (", ..." if len(files) > 10 else "") + ". Put",
        "https://zenodo.org/records/7319519 has them",
    )


# ---- raw reviews ----


def test_raw_reviews_of_all_domains(tmp_path: Path) -> None:
    """Category names have entities and other capitals; a label is that of Amazon's category in that domain."""
    content = prepared(data(tmp_path, raw_reviews()))
    expected = []
    for domain, labels in AMAZON_CATEGORIES.items():
        top = domain.replace("_", "-").lower()
        expected += [(f"Fine. {' '.join([label] * 110)}", [[top, f"{top}_{label}"]]) for label in labels]
    assert [(text.strip(), paths) for text, paths in content["all"]] == expected
    assert content["summary"]["documents"] == {"all": 10}
    assert content["summary"]["form"] == "the raw reviews"


def test_every_label_has_categories_of_its_own() -> None:
    """25 labels, each category under one of its domain, all in lower case, as they are compared."""
    assert len(amazon._CATEGORIES) == 5
    for labels in amazon._CATEGORIES.values():
        assert len(labels) == 5
        names = [name for categories in labels.values() for name in categories]
        assert len(names) == len(set(names))
        assert all(name == name.lower().strip() for name in names)


@pytest.mark.parametrize(
    ("summary", "text", "expected"),
    [
        ("Great fun", ENOUGH, f"Great fun. {ENOUGH}"),
        ("Great fun!!", ENOUGH, f"Great fun. {ENOUGH}"),
        ("Why?", f"  {ENOUGH}  ", f"Why. {ENOUGH}"),
        (None, ENOUGH, ENOUGH),
        ("", ENOUGH.replace(" word", "\n\tword", 1), ENOUGH),
        ("One  \n two", ENOUGH, f"One two. {ENOUGH}"),
    ],
)
def test_text_is_the_summary_a_full_stop_and_the_review(
    summary: str | None, text: str, expected: str, tmp_path: Path
) -> None:
    files = games([{"asin": "pc", "summary": summary, "reviewText": text}])
    assert of_games(prepared(data(tmp_path, files))) == [(expected, "video-games_pc")]


def test_only_reviews_of_more_than_a_hundred_words_count(tmp_path: Path) -> None:
    reviews = [
        {"asin": "pc", "reviewText": " ".join(["word"] * 100)},
        {"asin": "pc", "reviewText": " ".join(["word"] * 101)},
        {"asin": "pc", "summary": "one", "reviewText": " ".join(["word"] * 100)},
        {"asin": "pc", "reviewText": "w" * 5000},
        {"asin": "pc"},
        {"asin": "pc", "reviewText": None, "summary": None},
    ]
    texts = [text for text, _ in of_games(prepared(data(tmp_path, games(reviews))))]
    assert texts == [ENOUGH, "one. " + " ".join(["word"] * 100)]


def test_products_of_two_labels_or_none_are_left_out(tmp_path: Path) -> None:
    products = [
        {"asin": "both", "category": ["PC", "Xbox One"]},
        {"asin": "one, twice", "category": ["Wii", "Wii U", "Video Games"]},
        {"asin": "none", "category": ["Video Games", "Headphones"]},
        {"asin": "empty", "category": []},
        {"asin": "entity", "category": ["Nintendo 3DS &amp; 2DS"]},
    ]
    asins = ["both", "none", "empty", "one, twice", "not listed", "entity"]
    reviews = [{"asin": asin, "reviewText": f"{asin} {ENOUGH}"} for asin in asins]
    assert of_games(prepared(data(tmp_path, games(reviews, products)))) == [
        (f"{asin} {ENOUGH}", "video-games_nintendo") for asin in ("one, twice", "entity")
    ]


@pytest.mark.parametrize("available", [(40, 40, 40, 40, 40), (40, 1, 40, 3, 40), (2, 1, 0, 0, 3), (0, 0, 30, 0, 1)])
def test_labels_share_evenly_the_longest_first_and_the_rest_fills_up(
    available: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a choice by plain sorting; of equally long reviews the first in the file is taken."""
    total, labels = 22, dict(zip(["PC", "Xbox", "Wii", "PlayStation 4", "GameCube"], available, strict=True))
    names = ["pc", "xbox", "nintendo", "playstation", "retro-gaming-microconsoles"]
    label_of = dict(zip(labels, names, strict=True))
    monkeypatch.setattr(amazon, "_REVIEWS_A_DOMAIN", total)
    rng = random.Random(3)
    reviews = [
        {"asin": category, "reviewText": f"{number:03} {category} {ENOUGH} {'x' * rng.randrange(10)}x"}
        for category, count in labels.items()
        for number in range(count)
    ]
    rng.shuffle(reviews)

    by_label = defaultdict(list)
    for position, review in enumerate(reviews):
        by_label[review["asin"]].append((-len(review["reviewText"]), position))
    chosen, rest = [], []
    for ranked in by_label.values():
        chosen += sorted(ranked)[: total // 5]
        rest += sorted(ranked)[total // 5 :]
    chosen += sorted(rest)[: total - len(chosen)]
    expected = [reviews[position] for position in sorted(position for _, position in chosen)]
    assert len(expected) == min(total, sum(available))

    products = [{"asin": category, "category": [category]} for category in labels]
    assert of_games(prepared(data(tmp_path, games(reviews, products)))) == [
        (review["reviewText"], f"video-games_{label_of[review['asin']]}") for review in expected
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (GAMES, b'{"asin": "pc", "reviewText": "a"}\nword\n', "2: invalid JSON (Expecting value at column 1)"),
        (
            GAMES,
            b'{"asin": "pc"}\n\n{"reviewText": "a"}\n',
            "3: expected an object with 'asin', a str; got '{\"reviewText\": \"a\"}'",
        ),
        (GAMES, b'{"asin": 7, "reviewText": "a"}\n', "1: expected an object with 'asin', a str; got '{\"asin\": 7, "),
        (GAMES, b'["asin"]\n', "1: expected an object with 'asin', a str; got '[\"asin\"]'"),
        (GAMES, b"null\n", "1: expected an object with 'asin', a str; got 'null'"),
        (GAMES, b'"asin"\n', "1: expected an object with 'asin', a str; got '\"asin\"'"),
        (GAMES, b'{"asin": "pc", "reviewText": "caf\xe9"}\n', "1: invalid UTF-8 at byte 34 of the line"),
        (
            f"meta_{GAMES}",
            b'{"asin": "pc"}\n',
            "1: expected an object with 'category', a list; got '{\"asin\": \"pc\"}'",
        ),
        (f"meta_{GAMES}", b'{"category": []}\n', "1: expected an object with 'asin', a str; got"),
        (f"meta_{GAMES}", b'{"asin": "pc", "category": "PC"}\n', "1: expected an object with 'category', a list; got"),
        (f"meta_{GAMES}", b"17\n", "1: expected an object with 'asin', a str; got '17'"),
        (f"meta_{GAMES}", b'{"asin": "pc", "category": []}\n{"asi', "2: invalid JSON (Unterminated string"),
    ],
)
def test_bad_raw_lines_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    files = {**raw_reviews(), name: gzip.compress(content)}
    refused(data(tmp_path, files), f"{tmp_path / 'amazon/raw' / name}:{message}")


def test_an_error_in_a_later_domain_leaves_nothing(tmp_path: Path) -> None:
    files = {**raw_reviews(), "Musical_Instruments.json.gz": packed([{"reviewText": "a"}])}
    refused(data(tmp_path, files), "Musical_Instruments.json.gz:1: expected an object with 'asin', a str")


def test_half_of_a_character_in_a_review_is_refused(tmp_path: Path) -> None:
    files = games([{"asin": "pc", "reviewText": ENOUGH}, {"asin": "pc", "reviewText": f"{ENOUGH} \ud83d"}])
    path = tmp_path / "amazon/raw" / GAMES
    refused(data(tmp_path, files), f"{path}:2: '\\ud83d' is half of a character; correct the line")


def test_blank_lines_are_skipped_and_others_keep_their_documents(tmp_path: Path) -> None:
    lines = [{"asin": "pc", "reviewText": ENOUGH}, {"asin": "xbox", "reviewText": "Short."}]
    lines += [{"asin": "xbox", "reviewText": f"Last {ENOUGH}"}]
    files = games([])
    files[GAMES] = gzip.compress("\n \n".join(["", *map(json.dumps, lines), ""]).encode())
    files[f"meta_{GAMES}"] = gzip.compress(b"\n" + gzip.decompress(files[f"meta_{GAMES}"]))
    assert of_games(prepared(data(tmp_path, files))) == [
        (ENOUGH, "video-games_pc"),
        (f"Last {ENOUGH}", "video-games_xbox"),
    ]


@pytest.mark.parametrize(
    ("reviews", "products"),
    [
        ([], PRODUCTS),
        ([{"asin": "pc", "reviewText": "Short."}], PRODUCTS),
        ([{"asin": "pc", "reviewText": ENOUGH}], []),
        ([{"asin": "pc", "reviewText": ENOUGH}], [{"asin": "pc", "category": ["Board Games"]}]),
    ],
    ids=["no review", "too short", "no product", "no label"],
)
def test_a_domain_without_usable_reviews_is_refused(reviews: Any, products: Any, tmp_path: Path) -> None:
    message = "no review of over 100 words on a product with one of our labels"
    refused(data(tmp_path, games(reviews, products)), f"{tmp_path / 'amazon/raw' / GAMES}: {message}")


def test_fewer_reviews_than_the_benchmark_has_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared(data(tmp_path, raw_reviews()))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"{tmp_path / 'amazon/raw' / domain}.json.gz: 2 usable reviews, expected 100000" for domain in AMAZON_CATEGORIES
    ]


def test_as_many_reviews_as_the_benchmark_has_are_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon, "_REVIEWS_A_DOMAIN", 2)
    prepared(data(tmp_path, raw_reviews()))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("name", [GAMES, f"meta_{GAMES}"])
@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: b"{}\n", lambda c: json.dumps({}).encode()])
def test_damaged_gzip_is_refused(name: str, damage: Any, tmp_path: Path) -> None:
    files = raw_reviews()
    files[name] = damage(files[name])
    refused(data(tmp_path, files), f"{name}: damaged or truncated gzip after line ", "copy or download the file again")
