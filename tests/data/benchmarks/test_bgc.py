"""Blurb Genre Collection: books that are no XML, topics that are sets, a hierarchy beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import (
    BGC_BOOKS,
    BGC_HIERARCHY,
    BGC_PARENTS,
    BGC_TOPICS,
    archive,
    bgc_files,
    book,
    module,
    prepared,
    put,
    refused,
    topic_tags,
)

from ptmt_lightning.data.benchmarks.bgc import BGCDataModule, read_books, read_hierarchy
from ptmt_lightning.taxonomy import Taxonomy

DOCUMENTS = [(book.text, book.paths) for book in BGC_BOOKS]
TRAIN = "BlurbGenreCollection_EN_train.txt"
TOPICS = "<d0>Fiction</d0>"


def data(tmp_path: Path, files: dict[str, Any], **changes: Any) -> Any:
    return module(BGCDataModule, put(tmp_path / "bgc", files), **changes)


def one_book(tmp_path: Path, raw: str) -> tuple[str, list[list[str]]]:
    """The first training document."""
    document: tuple[str, list[list[str]]] = prepared(data(tmp_path, bgc_files(raw)))["train"][0]
    return document


def expected_paths(nodes: Iterable[str]) -> set[tuple[str, ...]]:
    """From the top to each node that has nothing below it among the nodes."""
    ways = set()
    for node in nodes:
        way = [node]
        while way[0] in BGC_PARENTS:
            way.insert(0, BGC_PARENTS[way[0]])
        ways.add(tuple(way))
    return {way for way in ways if not any(other != way and other[: len(way)] == way for other in ways)}


# ---- what is read ----


def test_the_official_archive(tmp_path: Path) -> None:
    bgc = data(tmp_path, {"blurbgenrecollectionen.zip": archive(bgc_files())})
    content = prepared(bgc)
    for split, expected in {"train": DOCUMENTS, "val": DOCUMENTS[:3], "test": DOCUMENTS[2:]}.items():
        assert [text for text, _ in content[split]] == [text for text, _ in expected]
        assert [sorted(paths) for _, paths in content[split]] == [sorted(paths) for _, paths in expected]
    characters = [len(text) for text, _ in DOCUMENTS + DOCUMENTS[:3] + DOCUMENTS[2:]]
    assert content["summary"] == {
        "documents": {"train": 4, "val": 3, "test": 2},
        "mean_characters": pytest.approx(sum(characters) / 9),
        "form": f"the books in {tmp_path / 'bgc/raw/blurbgenrecollectionen'}",
        "dropped": {},
    }
    assert bgc.split_sizes() == {"train": 4, "val": 3, "test": 2}
    assert all(bgc.has_split(split) for split in ("train", "val", "test"))
    assert list(bgc.texts("val")) == [text for text, _ in DOCUMENTS[:3]]


def test_the_taxonomy_holds_the_nodes_that_documents_have(tmp_path: Path) -> None:
    """Levels are depths in the hierarchy; ``Step Into Reading``, which no book has, is not there."""
    bgc = data(tmp_path, bgc_files())
    edges = prepared(bgc)["edges"]
    tops = ["Childrens-Books", "Fiction", "Nonfiction", "Poetry"]
    assert edges[:4] == [("ROOT", top) for top in tops]
    below = [(parent, child) for child, parent in BGC_PARENTS.items() if child != "Step-Into-Reading"]
    assert edges[4:] == sorted(below)
    assert bgc.taxonomy.level_sizes == (4, 3, 2, 1)


@settings(max_examples=60)
@given(chosen=st.lists(st.lists(st.sampled_from(sorted(BGC_TOPICS)), min_size=1, unique=True), min_size=1, max_size=5))
def test_paths_are_those_through_the_topics_and_all_above(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("books")
    (folder / "hierarchy.txt").write_text(BGC_HIERARCHY)
    (folder / TRAIN).write_text("".join(book("A title", "A blurb.", topic_tags(nodes)) for nodes in chosen))
    documents = list(read_books(folder / TRAIN, read_hierarchy(folder / "hierarchy.txt")))
    for document, nodes in zip(documents, chosen, strict=True):
        assert len(document.paths) == len({tuple(path) for path in document.paths})
        assert {tuple(path) for path in document.paths} == expected_paths(nodes)


def test_topics_of_no_listed_parent_get_it(tmp_path: Path) -> None:
    _, paths = one_book(tmp_path, book("T", "B.", "<d2>Crime Mysteries</d2>"))
    assert paths == [["Fiction", "Mystery-Suspense", "Crime-Mysteries"]]


@pytest.mark.parametrize("topic", ["Children\u2019s Books", "Children&#8217;s Books", "Children&rsquo;s Books"])
def test_names_with_and_without_entities_are_the_same_node(topic: str, tmp_path: Path) -> None:
    assert one_book(tmp_path, book("T", "B.", f"<d0>{topic}</d0>"))[1] == [["Childrens-Books"]]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Q & A, R&D, 1 < 2 > 0", "Q & A, R&D, 1 < 2 > 0"),
        ("Tom &amp; Jo &lt;3 &#8220;tea&#8221;&nbsp;now", "Tom & Jo <3 “tea”\xa0now"),
        ("An <i>odd</i> tag </br>", "An <i>odd</i> tag </br>"),
        ("One.\n\n  Two.\nA <book> is a word here.\nThree.", "One.\n\n  Two.\nA <book> is a word here.\nThree."),
        ("this &region, &copyright &amp &notes AT&T;", "this &region, &copyright &amp &notes AT&T;"),
        ("&lt;b&gt; &#38;amp; &#x2019;", "<b> &amp; \u2019"),
        ("", ""),
    ],
    ids=["bare", "entities", "tags", "several lines", "bare words", "decoded once", "empty"],
)
def test_blurbs_are_kept_as_they_are_but_for_entities(body: str, text: str, tmp_path: Path) -> None:
    assert one_book(tmp_path, book("Title", body, TOPICS))[0] == f"Title. {text}"


def test_a_book_on_one_line_windows_lines_and_blank_lines_between(tmp_path: Path) -> None:
    whole = book("T", "B.", TOPICS)
    raw = "\ufeff" + whole.replace("\n", "") + "\n\n  \n" + whole.replace("\n", "\r\n") + "\n" + whole.rstrip()
    content = prepared(data(tmp_path, bgc_files(raw)))
    assert content["train"] == [("T. B.", [["Fiction"]])] * 3


def test_topics_and_nodes_with_bare_ampersands_keep_their_words(tmp_path: Path) -> None:
    hierarchy = BGC_HIERARCHY + "Poetry\tLand &region\n"
    files = bgc_files(book("T", "B.", "<d1>Land &region</d1>"), hierarchy=hierarchy)
    assert prepared(data(tmp_path, files))["train"] == [("T. B.", [["Poetry", "Land-region"]])]


@pytest.mark.parametrize(("title", "body"), [("", ""), (" ", "\n \n")])
def test_books_without_title_and_blurb_are_counted_and_left_out(title: str, body: str, tmp_path: Path) -> None:
    raw = book(title, body, TOPICS) + book("", "B.", TOPICS) + book("T", "", TOPICS)
    content = prepared(data(tmp_path, bgc_files(raw)))
    assert [text for text, _ in content["train"]] == [". B.", "T. "]
    assert content["summary"]["dropped"] == {"no text": 1}


def test_a_hierarchy_may_list_its_tops_and_say_things_twice(tmp_path: Path) -> None:
    hierarchy = "Fiction\nPoetry\n" + BGC_HIERARCHY + "Fiction\tRomance\nNonfiction\n"
    content = prepared(data(tmp_path, bgc_files(hierarchy=hierarchy)))
    assert sorted(content["train"][1][1]) == sorted(DOCUMENTS[1][1])


# ---- what is refused ----


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (("</book>\n", ""), "{path}:15: no '</book>' for this book up to the end; the file is cut off"),
        (("<title>T</title>\n", ""), "{path}:15: this book has no <title> element; fetch the file again"),
        (("</body>", ""), "{path}:15: this book has no <body> element"),
        (("<topics>", ""), "{path}:15: this book has no <topics> element"),
        ((TOPICS, ""), "{path}:15: no topic; expected at least one in <topics>, such as <d0>Fiction</d0>"),
        ((TOPICS, "<d0>Fictions</d0>"), "{path}:15: topic 'Fictions' is not in hierarchy.txt; expected one of its"),
        (('<book date="2018-08-18" xml:lang="en">\n', ""), "{path}:15: expected '<book ...>', got '<title>T</title>'"),
        (("</book>\n", "</book>\n<note>\n"), "{path}:28: expected '<book ...>', got '<note>'"),
        ((TOPICS, f"{TOPICS}<d1>Romance</d0>"), "{path}:15: '<d1>Romance</d0>' among the topics; expected elements"),
        ((TOPICS, f"{TOPICS}<d1>Romance"), "{path}:15: '<d1>Romance' among the topics; expected elements such as <d0>"),
        ((TOPICS, f"{TOPICS}, Romance"), "{path}:15: ', Romance' among the topics"),
        ((TOPICS, "Fiction"), "{path}:15: 'Fiction' among the topics"),
        ((TOPICS, "<d0></d0>"), "{path}:15: topic '' is not in hierarchy.txt"),
    ],
)
def test_bad_books_are_refused_with_the_line_they_begin_on(
    broken: tuple[str, str], message: str, tmp_path: Path
) -> None:
    """After a good book of 13 lines and a blank one; the bad book is the last of its file."""
    good, bad = book("G", "B.", TOPICS), book("T", "B.", TOPICS)
    assert good.count("\n") == 13
    raw = f"{good}\n{bad.replace(*broken)}"
    refused(data(tmp_path, bgc_files(raw)), message.format(path=tmp_path / "bgc/raw" / TRAIN))


@pytest.mark.parametrize("position", [0, 1])
def test_a_book_without_end_in_the_middle_is_refused_at_the_next(position: int, tmp_path: Path) -> None:
    """Both would be read as one, and the second book's topics be lost."""
    raw = [book("One", "B.", TOPICS), book("Two", "B.", TOPICS), book("Three", "B.", "<d0>Poetry</d0>")]
    raw[position] = raw[position].replace("</book>\n", "")
    line = 13 * (position + 1)
    refused(
        data(tmp_path, bgc_files("".join(raw))),
        f"{tmp_path / 'bgc/raw' / TRAIN}:{line}: expected the rest of a book up to '</book>', got '<book date=",
        "fetch the file again",
    )


@pytest.mark.parametrize("name", ["dev", "test"])
def test_an_error_in_a_later_file_leaves_nothing_of_the_earlier(name: str, tmp_path: Path) -> None:
    files = bgc_files(**{name: book("T", "B.", "<d0>Nowhere</d0>")})
    path = tmp_path / f"bgc/raw/BlurbGenreCollection_EN_{name}.txt"
    refused(data(tmp_path, files), f"{path}:1: topic 'Nowhere' is not in hierarchy.txt")


def test_a_book_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    raw = book("Caf\xe9", "B.", TOPICS).encode("latin-1")
    message = f"{tmp_path / 'bgc/raw' / TRAIN}:2: invalid UTF-8 at byte 11 of the line; save the file as UTF-8"
    refused(data(tmp_path, {**bgc_files(), TRAIN: raw}), message)


def test_a_file_that_ends_within_a_book_is_refused(tmp_path: Path) -> None:
    whole = "".join(document.raw for document in BGC_BOOKS)
    start = "".join(document.raw for document in BGC_BOOKS[:3]).count("\n") + 1
    refused(data(tmp_path, bgc_files(whole[:-40])), f"{TRAIN}:{start}: no '</book>' for this book up to the end")


@pytest.mark.parametrize(
    ("hierarchy", "message"),
    [
        ("", "hierarchy.txt, edges: no edges"),
        ("Fiction\tRomance\textra\n", "hierarchy.txt:1: expected 'parent<TAB>child' or a single name, got"),
        ("Fiction\n\tRomance\n", "hierarchy.txt:2: expected 'parent<TAB>child' or a single name, got '\\tRomance'"),
        ("Fiction\t!\tRomance\n", "hierarchy.txt:1: expected 'parent<TAB>child'"),
        ("Fiction\t--\n", "hierarchy.txt:1: expected 'parent<TAB>child'"),
        ("Fiction\tPoetry\nPoetry\tFiction\n", "hierarchy.txt, edges: no edge starts at ROOT"),
        ("Fiction\tPoetry\nPoetry\tFiction\nRomance\n", "hierarchy.txt, edges:1: cycle Poetry -> Fiction -> Poetry"),
        ("Fiction\tROOT\n", "hierarchy.txt, edges:1: "),
    ],
)
def test_bad_hierarchies_are_refused(hierarchy: str, message: str, tmp_path: Path) -> None:
    refused(data(tmp_path, bgc_files(hierarchy=hierarchy)), message)


def test_a_hierarchy_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    files = {**bgc_files(), "hierarchy.txt": "Poetry\nCaf\xe9s\n".encode("latin-1")}
    refused(data(tmp_path, files), "hierarchy.txt:2: invalid UTF-8 at byte 4 of the line")


def test_a_label_under_two_parents_is_refused(tmp_path: Path) -> None:
    files = bgc_files(hierarchy=BGC_HIERARCHY + "Poetry\tRomance\n")
    refused(data(tmp_path, files), f"{TRAIN}:14: label 'Romance' under ", "expected one parent a label")


@pytest.mark.parametrize("gone", [*bgc_files()])
def test_a_missing_file_is_refused_with_what_is_there(gone: str, tmp_path: Path) -> None:
    files = bgc_files()
    del files[gone]
    refused(
        data(tmp_path, files),
        f"{tmp_path / 'bgc/raw'}: expected blurbgenrecollectionen.zip, or BlurbGenreCollection_EN_train.txt, "
        "BlurbGenreCollection_EN_dev.txt, BlurbGenreCollection_EN_test.txt and hierarchy.txt; found "
        + ", ".join(sorted(files)),
    )


def test_one_file_in_two_places_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "bgc/raw"
    refused(
        data(tmp_path, {**bgc_files(), f"old/{TRAIN}": bgc_files()[TRAIN]}),
        f"{raw / TRAIN}: there is {raw / 'old' / TRAIN} as well; keep one of the two",
    )


@pytest.mark.parametrize("key", ["fold", "min_documents"])
def test_it_has_no_folds_and_no_least_number(key: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=key):
        data(tmp_path, {}, **{key: 1})


def test_a_book_within_another_is_refused(tmp_path: Path) -> None:
    books = tmp_path / "books.txt"
    one = "<title>One</title><body>A</body><topics><d0>Fiction</d0></topics>"
    for text in (
        f'<book date="1">{one}</book><book date="2">{one}</book>\n',
        f'<book date="1"><title>T{one}<book date="2">{one}\n</book>\n',
    ):
        books.write_text(text)
        with pytest.raises(ValueError, match=r"books\.txt:1: another book begins within this one"):
            list(read_books(books, Taxonomy([("ROOT", "Fiction")])))


def test_words_that_begin_like_an_entity_stay(tmp_path: Path) -> None:
    books = tmp_path / "books.txt"
    books.write_text(
        '<book date="1">\n<title>R&regards; &amp; &notes;</title>\n<body>&copy2; &#65;&copy;</body>\n'
        "<topics><d0>Fiction</d0></topics>\n</book>\n"
    )
    [document] = read_books(books, Taxonomy([("ROOT", "Fiction")]))
    assert document.text == "R&regards; & &notes;. &copy2; A©"
