"""The tasks of the bundled corpus beside `pydocs/library`: what of a docstring becomes a row, that
splits do not leak, and that the tasks named after them take the rows.

Tests that take `corpora` read the installed libraries through peftkit's own cache: about half a
minute of processor time when it is empty, after the scan.
"""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftkit import Recipe, parts
from peftkit.data import (
    _docstrings,
    _googledoc,
    _numpydoc,
    _pydocs_defaults,
    _pydocs_parameters,
    _pydocs_summary,
    _pydocs_text,
    load_splits,
    pydocs,
)
from peftkit.data._docstrings import Docstring
from peftkit.data._entries import Entry
from peftkit.data._pydocs_split import Item, Sizes
from peftkit.data.splits import SPLIT_NAMES, Splits
from peftkit.errors import InvalidInput, UnknownName
from peftkit.evaluate import IGNORED
from peftkit.tasks._spans import spans
from peftkit.workbench import Workbench

PLAIN = ("summary", "parameters", "defaults", "text")
HELD_OUT = {"summary": (1000, 600), "parameters": (1000, 600), "defaults": (1000, 600)}
HELD_OUT["text"] = (350, 350)
SIZES = Sizes(test=12, validation=8, rows_per_file=4, largest_file=20)


def docstring(text: str, file: str = "alpha/a.py") -> Docstring:
    return Docstring(file.partition("/")[0], file, "alpha.a.f", "function", inspect.cleandoc(text))


def row_of(items: list[Item]) -> Any:
    (item,) = items
    (row,) = item.rows
    return row


# ---------------------------------------------------------------- entries of parameters


def read(entry: Entry | None) -> tuple[list[str], str | None, list[str]]:
    assert entry is not None
    text = entry.text
    assert entry.colon is None or text[entry.colon] == ":"
    written = [[text[a:b] for a, b in each] for each in (entry.names, entry.defaults)]
    return written[0], entry.type and text[slice(*entry.type)], written[1]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("axis : int", (["axis"], "int", [])),
        ("axis", (["axis"], None, [])),
        ("*args, **kwargs", (["args", "kwargs"], None, [])),
        (r"\*args : object", (["args"], "object", [])),
        ("x, y : float, optional", (["x", "y"], "float", [])),
        ("a1, a2, ... : array_like", (["a1", "a2"], "array_like", [])),
        ("name: str", (["name"], "str", [])),
        ("last : optional", (["last"], None, [])),
        ("a : (N, M) array_like (optional)", (["a"], "(N, M) array_like", [])),
        # defaults in the first line
        ("n : int, default 5", (["n"], "int", ["5"])),
        ("n : int, default: 5", (["n"], "int", ["5"])),
        ("n : int, default=-1", (["n"], "int", ["-1"])),
        ("n : int (default = 5)", (["n"], "int", ["5"])),
        ("tol : float, optional, default 1e-3", (["tol"], "float", ["1e-3"])),
        ("mode : {'a', 'b'}, default='a'", (["mode"], "{'a', 'b'}", ["a"])),
        ('mode : {"default", "b"}, default="b"', (["mode"], '{"default", "b"}', ["b"])),
        ("c : color, default: :rc:`axes.color`", (["c"], "color", ["axes.color"])),
        ("r : tuple, default=(1e-5, 1e5)", (["r"], "tuple", ["(1e-5, 1e5)"])),
        ("f : callable, default np.inf", (["f"], "callable", ["np.inf"])),
        ("s : str, default ''", (["s"], "str", [])),
        ("level : int, default last level", (["level"], "int", [])),
        # defaults in the description
        ("n : int\n    Steps. Default is 5.", (["n"], "int", ["5"])),
        ("n : int\n    Steps (default: 5).", (["n"], "int", ["5"])),
        ("n : int\n    Steps, by default 5.", (["n"], "int", ["5"])),
        (
            "n : int\n    Steps. The default value is set to\n    ``None``.",
            (["n"], "int", ["None"]),
        ),
        ("n : int\n    Defaults to ``n=5``.", (["n"], "int", ["5"])),
        ("n : int\n    If None (default), all steps.", (["n"], "int", ["None"])),
        ("n : int\n    If False, the default, none.", (["n"], "int", ["False"])),
        ("n : int, default 5\n    Default is 5.", (["n"], "int", ["5", "5"])),
        # no default, or one that holds sometimes, or of something else
        ("n : int\n    If None, defaults to 5.", (["n"], "int", [])),
        ("n : int\n    Defaults to 5 if `x` is given.", (["n"], "int", [])),
        ("n : int\n    The default changed from 4 to 5. It was 4.", (["n"], "int", [])),
        ("n : int\n    The default is the number of rows.", (["n"], "int", [])),
        ("n : int\n    Default is 5 * k.", (["n"], "int", [])),
        ("n : int\n    Uses ``m=5`` (default) and so on.", (["n"], "int", [])),
        (
            "n : int\n    Steps.\n\n    .. versionchanged:: 2\n       Default is 5.",
            (["n"], "int", []),
        ),
    ],
)
def test_numpydoc_entry(entry: str, expected: tuple[list[str], str | None, list[str]]) -> None:
    assert read(_numpydoc.parse(entry)) == expected


@pytest.mark.parametrize("line", ["See `amin` for these.", "%(axis)s", "  indented : int"])
def test_what_is_no_numpydoc_entry(line: str) -> None:
    assert _numpydoc.parse(line) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("n (int): Steps.", (["n"], "int", [])),
        ("n (`int`, *optional*, defaults to 5):\n    Steps.", (["n"], "`int`", ["5"])),
        ('s (`str`, *optional*, defaults to `"<s>"`):', (["s"], "`str`", ["<s>"])),
        ("n (int, optional): Steps. Default: 5", (["n"], "int", ["5"])),
        ("b (bool): Whether (default: ``True``)", (["b"], "bool", ["True"])),
        ("x (`int`, *optional*, default to `self.x[0]`):", (["x"], "`int`", ["self.x[0]"])),
        ("i (Index, optional, defaults to the one of `x`):", (["i"], "Index", [])),
        ("f (Callable[[int], bool]): Called.", (["f"], "Callable[[int], bool]", [])),
    ],
)
def test_google_entry(entry: str, expected: tuple[list[str], str | None, list[str]]) -> None:
    assert read(_googledoc.parse(entry)) == expected


def test_numpydoc_sections_end_where_the_next_one_begins() -> None:
    text = inspect.cleandoc(
        """
        Do it.

        Parameters
        ----------
        a : int
            First.

            More of the first.
        %(shared)s
        b : int

        Other Parameters
        ----------------
        c : int

        Returns
        -------
        d : int
        """
    )

    found = [[entry and entry.text for entry in section] for section in _numpydoc.sections(text)]

    assert found == [
        ["a : int\n    First.\n\n    More of the first.", None, "b : int"],
        ["c : int"],
    ]


def test_google_lists_are_found_with_and_without_heading_but_not_below_returns() -> None:
    text = inspect.cleandoc(
        """
        a (int): First.
        b (int):
            Second.

        Args:
            c (int): Third,
                still third.
            d: untyped
            e (int): Fifth.

        Returns:
            f (int): No parameter.
        """
    )

    found = [[entry and entry.text for entry in section] for section in _googledoc.sections(text)]

    assert found == [
        ["a (int): First.", "b (int):\n    Second."],
        ["c (int): Third,\n    still third."],
        ["e (int): Fifth."],
    ]


# ---------------------------------------------------------------- rows, written out


def test_parameters_row_has_no_layout_and_tags_in_bio() -> None:
    row = row_of(
        _pydocs_parameters.items(
            [
                docstring(
                    """
                    Search.

                    Parameters
                    ----------
                    a, b : (N,) `array_like`
                        Sorted by :func:`~numpy.sort`.
                    *side* is no entry
                    x : {'left', 'right'}, default: 'left'
                        Which of *a* to return.  Default is ``'left'``.

                        A second paragraph.
                    **kwargs
                        See `glossary <words>`.
                    """
                )
            ]
        )
    )

    # The line that is no entry ends a run of one entry, which is no row.
    expected = (
        "x/B-name {/B-type 'left'/I-type ,/I-type 'right'/I-type }/I-type ,/O default/O :/O "
        "'left'/B-default Which/O of/O a/O to/O return/O ./O Default/O is/O 'left'/B-default ./O "
        "kwargs/B-name See/O glossary/O ./O"
    )
    assert [f"{w}/{t}" for w, t in zip(row["tokens"], row["tags"], strict=True)] == expected.split()


def test_names_that_share_an_entry_are_spans_of_their_own() -> None:
    entry = _numpydoc.parse("a, b : (N,) `array_like`\n    By :func:`~numpy.sort`, e.g. 1-D, -1.5.")
    assert entry is not None

    words = _pydocs_parameters.tagged_words(entry)

    assert [word for word, _ in words] == (
        "a , b ( N , ) array_like By numpy.sort , e.g . 1-D , -1.5 .".split()
    )
    assert [tag for _, tag in words[:8]] == (
        "B-name O B-name B-type I-type I-type I-type I-type".split()
    )
    assert {tag for _, tag in words[8:]} == {"O"}


def test_long_entries_are_cut_behind_a_sentence_and_long_sections_fall_into_rows() -> None:
    sentence = "    Some words that go on, as with e.g. this one.\n"
    entries = "".join(f"x{i} : int\n{5 * sentence}" for i in range(5))

    items = _pydocs_parameters.items([docstring(f"Do.\n\nParameters\n----------\n{entries}")])

    # A sentence has 13 words and marks, its "e.g" and "." among them. Of 40 two fit behind a first
    # line of two, of such entries two into 64. The fifth would be a row of one entry.
    assert [len(item.rows[0]["tokens"]) for item in items] == [2 * (2 + 2 * 13)] * 2
    assert [item.rows[0]["tags"].index("B-type") for item in items] == [1, 1]


def test_defaults_are_asked_once_a_value_and_answered_wherever_they_stand() -> None:
    items = _pydocs_defaults.items(
        [
            docstring(
                """
                Do it.

                Parameters
                ----------
                a : int, default 0
                    First.
                b : {'x', 'y'}, default 'x'
                    Second. Default is "x".
                c : int, default: 0
                d : str, default ''
                e : int, default 1
                    Defaults to 2.
                """
            )
        ]
    )

    (item,) = items
    context = (
        "a : int, default 0\n    First.\nb : {'x', 'y'}, default 'x'\n    Second. Default is "
        "\"x\".\nc : int, default: 0\nd : str, default ''\ne : int, default 1\n    Defaults to 2."
    )
    by_question = {row["question"]: row for row in item.rows}
    assert {row["context"] for row in item.rows} == {context}
    # Of `a` and `c` one is asked about; `d` has an empty default, `e` contradicts itself.
    asked = by_question.keys() - {"What is the default of `b`?"}
    assert len(item.rows) == 2
    assert asked < {"What is the default of `a`?", "What is the default of `c`?"}
    assert by_question["What is the default of `b`?"]["answers"] == {
        "text": ["x", "x"],
        "answer_start": [context.index("'x'\n") + 1, context.index('"x"') + 1],
    }
    (zero,) = (by_question[question]["answers"] for question in asked)
    assert zero["text"] == ["0"]
    assert zero["answer_start"][0] in (context.index("0\n"), context.index("0\nd"))


def test_contexts_with_one_default_or_too_long_are_left_out() -> None:
    one = "Do.\n\nParameters\n----------\na : int, default 0\nb : int, default 0"
    long = "Do.\n\nArgs:\n    a (int, defaults to 0): A.\n    b (int, defaults to 1): " + 900 * "b"

    assert _pydocs_defaults.items([docstring(one), docstring(long)]) == []
    assert len(_pydocs_defaults.items([docstring(long[:-200])])) == 1


@pytest.mark.parametrize(
    ("text", "summary", "begins"),
    [
        ("Return all the rows. They are {body}", "Return all the rows.", "They are"),
        ("Return all\nthe rows\n\nThey are {body}", "Return all the rows", "They are"),
        ("Return rows, e.g. the first. They {body}", "Return rows, e.g. the first.", "They"),
        ("Written by P. Dierckx and others. They {body}", "Written by P. Dierckx and others.", ""),
        ("Too short here.\n\n{body}", None, ""),
        ("Return all the rows.\n\nToo short a body.", None, ""),
        ("Return all the rows.\n\n{body} To return all the rows, {body}", None, ""),
        ("Parameters\n----------\nx : int of some kind\n\n{body}", None, ""),
        ("do(x, y, *, z=None) -> Tensor of rows\n\n{body}", None, ""),
        ("It does the following things:\n\n{body}", None, ""),
        (".. deprecated:: 1.2 use something else\n\n{body}", None, ""),
        ("Deprecated: use something else instead.\n\n{body}", None, ""),
        (">>> print('an example of some kind')\n\n{body}", None, ""),
    ],
)
def test_summary_is_the_first_sentence(text: str, summary: str | None, begins: str) -> None:
    body = " ".join(f"word{i}" for i in range(35)) + "."
    found = _pydocs_summary.items([docstring(text.replace("{body}", body))])

    assert [item.rows[0]["summary"] for item in found] == ([] if summary is None else [summary])
    for item in found:
        assert item.rows[0]["text"].startswith(begins)
        assert body in item.rows[0]["text"]


def test_summary_found_twice_is_kept_once() -> None:
    words = [" ".join(f"{letter}{i}" for i in range(35)) for letter in "abc"]
    texts = [f"Return the {x} rows.\n\n{w}" for x, w in zip("ppq", words, strict=True)]
    texts.append(f"Return the r rows.\n\n{words[0]}")

    found = _pydocs_summary.items([docstring(text) for text in texts])

    assert [item.rows[0]["summary"] for item in found] == [
        "Return the p rows.",
        "Return the q rows.",
    ]


def test_text_is_cleaned_and_cut_at_a_line() -> None:
    line = "This line has forty characters in all.  \n"
    text = "First.  \n\n\n\n.. versionadded:: 1.2\n\n%(shared)s\n" + 200 * line

    row = row_of(_pydocs_text.items([docstring(text)]))

    lines = row["text"].split("\n")
    assert lines[:3] == ["First.", "", line.strip()]
    assert len(row["text"]) == len("First.\n") + len(lines[2:]) * 39
    assert 4000 - 39 < len(row["text"]) <= 4000
    assert _pydocs_text.items([docstring("Short."), docstring(300 * "12 ")]) == []


# ---------------------------------------------------------------- a small tree

VOWELS = "aeiou"


def made_up(draw: random.Random) -> str:
    """A docstring of which every task makes at least one row."""

    def words(count: int) -> str:
        letters = ("".join(draw.choices("bdfgklmnprst", k=3)) for _ in range(count))
        return " ".join(
            a[0] + draw.choice(VOWELS) + a[1] + draw.choice(VOWELS) + a[2] for a in letters
        )

    return "\n".join(
        [
            f"Return {words(6)}.",
            "",
            f"{words(40)}.",
            "",
            "Parameters",
            "----------",
            f"{words(1)} : int, default {draw.randint(0, 9)}",
            f"    {words(9)}.",
            f"{words(1)} : float, default {draw.randint(10, 99)}",
            f"    {words(9)}.",
        ]
    )


def module(texts: list[str]) -> str:
    functions = []
    for i, text in enumerate(texts):
        indented = text.replace("\n", "\n    ")
        functions.append(f'def f{i}():\n    """{indented}\n    """\n')
    return "\n\n".join(functions)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two libraries of ten files with six docstrings each, and an empty cache."""
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path / "cache"))
    draw = random.Random(0)
    roots = {name: tmp_path / "site" / name for name in ("alpha", "beta")}
    for root in roots.values():
        root.mkdir(parents=True)
        for i in range(10):
            (root / f"m{i}.py").write_text(module([made_up(draw) for _ in range(6)]))
    return roots


def build(name: str, roots: dict[str, Path], sizes: Sizes = SIZES) -> Splits:
    extra: dict[str, Any] = {"reserved": ()} if name == "text" else {}
    return pydocs.TASKS[name](sizes=sizes, roots=roots, workers=1, **extra)


def rows(splits: Splits) -> dict[str, list[dict[str, Any]]]:
    return {name: part.to_list() for name, part in splits.parts().items()}


@pytest.mark.parametrize("name", PLAIN)
def test_small_tree_is_split_by_file_and_cached(
    name: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = build(name, roots)

    found = rows(splits)
    assert {split: len(found[split]) for split in SPLIT_NAMES[1:]} == {"test": 12, "validation": 8}
    files = [{row["file"] for row in found[split]} for split in SPLIT_NAMES]
    assert sum(map(len, files)) == len(set.union(*files)) == 20  # 3 + 2 held out, 15 left
    assert len(files[0]) == 15
    assert len(found["train"]) == 15 * 6 * (2 if name == "defaults" else 1)
    for held_out in SPLIT_NAMES[1:]:
        assert max(Counter(row["file"] for row in found[held_out]).values()) == 4

    monkeypatch.setattr(_docstrings, "read_files", None)
    monkeypatch.setattr(pydocs.build_plain.__globals__["_pydocs_split"], "choose", None)
    again = build(name, roots)

    assert rows(again) == found
    assert (again.fingerprint, again.notes, again.source) == (
        splits.fingerprint,
        splits.notes,
        splits.source,
    )


@pytest.mark.parametrize("name", PLAIN)
def test_another_source_is_another_corpus(name: str, roots: dict[str, Path]) -> None:
    before = build(name, roots).fingerprint
    smaller = build(name, roots, Sizes(test=11, validation=8, rows_per_file=4)).fingerprint
    (roots["alpha"] / "m10.py").write_text(module([made_up(random.Random(1))]))

    assert len({before, smaller, build(name, roots).fingerprint}) == 3


@pytest.mark.parametrize("name", PLAIN)
def test_near_duplicates_of_held_out_rows_leave_train(name: str, roots: dict[str, Path]) -> None:
    plain = build(name, roots)
    held_out = {row["file"] for split in SPLIT_NAMES[1:] for row in rows(plain)[split]}
    source = {file: (roots["alpha"].parent / file).read_text() for file in held_out}
    train = roots["alpha"].parent / rows(plain)["train"][0]["file"]
    # Every docstring of a held-out file again, in a train file, with a word more a sentence.
    copies = re.sub(r"\.$", " again.", "\n\n".join(source.values()), flags=re.MULTILINE)
    train.write_text(train.read_text() + re.sub(r"def f\d", "def g", copies))

    splits = build(name, roots)

    assert len(source) == 5
    assert [rows(splits)[split] for split in SPLIT_NAMES[1:]] == [
        rows(plain)[split] for split in SPLIT_NAMES[1:]
    ]
    held_out_texts, per_text = (10, 2) if name == "defaults" else (20, 1)
    more = len(rows(splits)["train"]) - len(rows(plain)["train"])
    assert more == (5 * 6 - held_out_texts) * per_text
    assert [note for note in splits.notes if note.startswith(f"{held_out_texts} of ")]


def test_text_from_files_that_others_hold_out_is_no_train_text(roots: dict[str, Path]) -> None:
    reserved = [f"alpha/m{i}.py" for i in range(10)]

    splits = pydocs.text(reserved=reserved, sizes=SIZES, roots=roots)

    assert {row["file"].split("/")[0] for row in rows(splits)["train"]} == {"beta"}


def test_too_little_text_is_said(roots: dict[str, Path]) -> None:
    with pytest.raises(InvalidInput, match=r"pydocs/summary: 80 test rows where 1000 are needed"):
        pydocs.summary(roots=roots, sizes=Sizes(test=1000, rows_per_file=4))


@pytest.mark.parametrize("name", ["pydocs/sumary", "pydocs/txt", "pydocs/parameter"])
def test_misspelt_corpus_is_corrected(name: str) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'pydocs/"):
        load_splits(name)


# ---------------------------------------------------------------- the installed libraries


@pytest.fixture(scope="session")
def corpora() -> Callable[[str], Splits]:
    """The tasks made of the installed libraries, each read once."""
    known: dict[str, Splits] = {}
    return lambda name: known.setdefault(name, load_splits(f"pydocs/{name}"))


Corpora = Callable[[str], Splits]


@pytest.mark.parametrize("name", PLAIN)
def test_held_out_rows_are_as_many_as_promised_and_from_files_of_their_own(
    name: str, corpora: Corpora
) -> None:
    parts_of = corpora(name).parts()

    assert (parts_of["test"].num_rows, parts_of["validation"].num_rows) == HELD_OUT[name]
    assert parts_of["train"].num_rows > 3 * HELD_OUT[name][0]
    files = {split: Counter(part["file"]) for split, part in parts_of.items()}
    assert sum(map(len, files.values())) == len(set().union(*files.values()))
    for split in SPLIT_NAMES[1:]:
        assert max(files[split].values()) <= 10
        assert len(files[split]) > 60


@pytest.mark.parametrize(
    ("name", "column"),
    [("summary", "text"), ("parameters", "tokens"), ("defaults", "context"), ("text", "text")],
)
def test_held_out_texts_have_no_near_duplicates_elsewhere(
    name: str, column: str, corpora: Corpora
) -> None:
    def triples(text: Any) -> set[tuple[str, ...]]:
        joined = text if isinstance(text, str) else " ".join(text)
        words = re.findall(r"\w+", joined.lower())
        return set(zip(words, words[1:], words[2:], strict=False))

    parts_of = corpora(name).parts()
    train = [triples(text) for text in parts_of["train"][column]]
    held_out = [*parts_of["test"][column], *parts_of["validation"][column]]

    for text in random.Random(0).sample(held_out, 40):
        own = triples(text)
        for other in train:
            shared = len(own & other)
            assert 2 * shared <= len(own) + len(other) - shared


def test_tags_are_bio_and_name_every_type(corpora: Corpora) -> None:
    for rows_of in corpora("parameters").parts().values():
        tags_found = set()
        for words, tags in zip(rows_of["tokens"], rows_of["tags"], strict=True):
            assert len(words) == len(tags) <= _pydocs_parameters.LONGEST_ROW
            assert all(word and not re.search(r"[\s`]", word) for word in words)
            assert spans(tags) == spans(tags, strict=True, scheme="BIO")
            assert tags.count("B-name") >= 2
            tags_found |= set(tags)
        kinds = [f"{mark}-{kind}" for mark in "BI" for kind in ("default", "name", "type")]
        assert tags_found >= {"O", *kinds} - {"I-name"}


def test_answers_stand_where_they_say_and_differ_within_a_context(corpora: Corpora) -> None:
    for rows_of in corpora("defaults").parts().values():
        answers: dict[str, list[str]] = {}
        for row in rows_of:
            assert len(row["context"]) <= _pydocs_defaults.LONGEST_CONTEXT
            name = re.fullmatch(r"What is the default of `(\w+)`\?", row["question"])
            assert name is not None
            assert name[1] in row["context"]
            for text, start in zip(*row["answers"].values(), strict=True):
                assert row["context"][start : start + len(text)] == text != ""
            answers.setdefault(row["context"], []).append(row["answers"]["text"][0])
        assert all(len(set(each)) == len(each) for each in answers.values())
        assert len(set(rows_of["id"])) == len(rows_of)
        shares = Counter(text[0] for text in (row["text"] for row in rows_of["answers"]))
        assert max(shares.values()) < 0.2 * len(rows_of)


def test_summaries_are_short_single_lines_that_their_texts_do_not_hold(corpora: Corpora) -> None:
    for rows_of in corpora("summary").parts().values():
        for row in rows_of:
            words = [" ".join(re.findall(r"\w+", row[c].lower())) for c in ("text", "summary")]
            assert words[1] not in words[0]
            assert row["summary"] == " ".join(row["summary"].split())
            assert len(row["summary"]) <= 250
            assert len(row["text"]) <= 2000


def test_train_text_is_not_from_files_that_any_task_holds_out(corpora: Corpora) -> None:
    train = set(corpora("text").train["file"])

    for name in pydocs.TASKS:
        for part in (corpora(name).test, corpora(name).validation):
            assert not train & set(part["file"])


def test_texts_of_a_held_out_split_are_about_300_kilobytes(corpora: Corpora) -> None:
    for part in (corpora("text").test, corpora("text").validation):
        assert 200_000 < sum(map(len, part["text"])) < 450_000


@pytest.mark.parametrize(
    ("corpus", "name"),
    [("pydocs/parameters", "token_classification"), ("pydocs/defaults", "question_answering")],
)
def test_tasks_take_the_rows(corpus: str, name: str, tmp_path: Path) -> None:
    recipe = Recipe(method="full", backbone="twin:bert", task={"name": corpus, "size": 64}, seed=0)
    data = recipe.task.load(seed=0)

    examples = Workbench(recipe, data, tmp_path).encode(data.train)

    assert parts.name_of(type(recipe.task)) == name
    assert (len(data.train), len(data.test)) == (64, 1000)
    if name == "token_classification":
        kinds = [f"{mark}-{kind}" for mark in "BI" for kind in ("default", "name", "type")]
        assert data.labels == ["O", *(kind for kind in kinds if kind != "I-name")]
        labels = [[v for v in example["labels"] if v != IGNORED] for example in examples]
        assert labels == [
            tags[: len(found)] for found, tags in zip(labels, data.train["label"], strict=True)
        ]
    else:  # every answer is whole in a window of its question
        found = {e["_row"] for e in examples if tuple(e["labels"]) != (0, 0)}
        assert found == set(range(64))


def test_summaries_are_found_by_name() -> None:
    cls, options = parts.load_task("pydocs/summary")

    assert (parts.name_of(cls), options) == ("summarization", {"data": "pydocs/summary"})
