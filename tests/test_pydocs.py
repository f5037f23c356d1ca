"""The bundled corpus: what is read, how rows are chosen, and that the cache never lies.

Most tests read a small tree of made-up libraries. Those that take `corpus` read the installed
libraries through peftkit's own cache: about 40 seconds of processor time when it is empty.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import random
import re
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from peftkit.cache import cache_folder
from peftkit.data import _docstrings, _pydocs_library, _pydocs_scan, pydocs
from peftkit.data._near_duplicates import NearDuplicates
from peftkit.data._pydocs_split import Sizes
from peftkit.data.splits import Splits
from peftkit.errors import InvalidInput, UnknownName

REPOSITORY = Path(pydocs.__file__).parents[2]
SIZES = Sizes(test=8, validation=4, rows_per_file=3, largest_file=9)
WORDS = [a + b + c for a in "bdk" for b in "aeo" for c in ("lim", "lor", "mun", "nat", "pes")]
SPLITS = ("train", "validation", "test")


def sentence(source: random.Random, num_words: int = 9) -> str:
    return " ".join(source.choice(WORDS) for _ in range(num_words)).capitalize() + "."


def module(*docstrings: str) -> str:
    bodies = (f'def f{i}():\n    """{text}"""\n' for i, text in enumerate(docstrings))
    return "\n\n".join(bodies)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Three libraries of 12 files with 5 docstrings each, and an empty cache."""
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path / "cache"))
    source = random.Random(0)
    roots = {}
    for library in ("alpha", "beta", "gamma"):
        roots[library] = tmp_path / "site" / library
        roots[library].mkdir(parents=True)
        for i in range(12):
            texts = [sentence(source) for _ in range(5)]
            (roots[library] / f"m{i}.py").write_text(module(*texts))
    return roots


@pytest.fixture(scope="session")
def corpus() -> Splits:
    """The splits of the installed libraries."""
    return pydocs.library()


def parts(splits: Splits) -> dict[str, list[dict]]:
    return {name: getattr(splits, name).to_list() for name in SPLITS}


@functools.cache
def triples(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def jaccard(one: str, other: str) -> float:
    """An implementation of its own: every pair of texts, shingles as tuples of words."""
    ones, others = triples(one), triples(other)
    shared = len(ones & others)
    return shared / (len(ones) + len(others) - shared)


# ---------------------------------------------------------------- the installed libraries


def test_held_out_splits_have_100_and_60_rows_a_class(corpus: Splits) -> None:
    counts = {name: Counter(rows["label"]) for name, rows in datasets_of(corpus).items()}

    assert counts["test"] == dict.fromkeys(range(10), 100)
    assert counts["validation"] == dict.fromkeys(range(10), 60)


def datasets_of(splits: Splits) -> dict[str, dict[str, list]]:
    return {name: getattr(splits, name).to_dict() for name in SPLITS}


def test_train_is_balanced_and_as_large_as_the_notes_say(corpus: Splits) -> None:
    counts = Counter(corpus.train["label"])

    assert sorted(counts) == list(range(10))
    assert len(set(counts.values())) == 1
    assert counts[0] >= 400
    assert any(f"capped at {counts[0]} rows a class" in note for note in corpus.notes)


def test_no_file_serves_two_splits(corpus: Splits) -> None:
    files = {name: set(rows["file"]) for name, rows in datasets_of(corpus).items()}

    assert not files["train"] & files["test"]
    assert not files["train"] & files["validation"]
    assert not files["validation"] & files["test"]


def test_no_file_gives_more_than_ten_held_out_rows(corpus: Splits) -> None:
    for held_out in (corpus.test, corpus.validation):
        assert max(Counter(held_out["file"]).values()) <= 10


def test_labels_name_the_library_that_holds_the_file(corpus: Splits) -> None:
    assert list(pydocs.LIBRARIES) == sorted(pydocs.LIBRARIES)
    for name in SPLITS:
        split = getattr(corpus, name)
        assert split.features["label"].names == list(pydocs.LIBRARIES)
        assert split.column_names == ["text", "label", "label_text", "file"]
        for row in split:
            assert row["label_text"] == pydocs.LIBRARIES[row["label"]] == row["file"].split("/")[0]


def test_held_out_rows_have_no_near_duplicates_in_any_split(corpus: Splits) -> None:
    texts = {name: list(getattr(corpus, name)["text"]) for name in SPLITS}
    everything = [text for name in SPLITS for text in texts[name]]
    sample = random.Random(0).sample(texts["test"] + texts["validation"], 200)

    # A text is near itself, and must be near nothing else.
    near = [sum(jaccard(text, other) > 0.5 for other in everything) for text in sample]

    assert near == [1] * 200


def test_no_text_occurs_twice_and_none_names_a_library(corpus: Splits) -> None:
    texts = [text for name in SPLITS for text in getattr(corpus, name)["text"]]
    keys = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    names = re.compile(r"\b(numpy|np|torch|pytorch|pandas|pd|scikit-learn|pydantic|scipy)\b", re.I)

    assert len(set(keys)) == len(keys)
    assert [text for text in texts if names.search(text)] == []


def test_texts_are_short_single_lines_of_prose(corpus: Splits) -> None:
    for name in SPLITS:
        for text in getattr(corpus, name)["text"]:
            assert text == " ".join(text.split())
            assert len(re.findall(r"\w+", text)) >= 4
            assert len(text) <= 450  # 400 before a name was replaced by the word "library"


def test_scan_of_an_installed_library_agrees_with_ast_walk() -> None:
    docstrings = pydocs.scan(["datasets"])
    package = Path(_pydocs_scan.locate("datasets", None).root)
    by_file = defaultdict(list)
    for docstring in docstrings:
        by_file[docstring.file].append(docstring.text)

    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in package.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
            texts = filter(None, map(ast.get_docstring, nodes))
            assert sorted(by_file[file.relative_to(package.parent).as_posix()]) == sorted(texts)
    assert len(docstrings) > 500


# ---------------------------------------------------------------- what is read


def test_scan_names_nested_definitions_in_source_order(roots: dict[str, Path]) -> None:
    source = inspect.cleandoc(
        '''
        """Module."""
        class A:
            """Class.

            Body:
                indented
            """
            async def b(self):
                "Method."
                def c():
                    "Nested."
        try:
            import nothing
        except ImportError:
            def d(): "Fallback."
        match 1:
            case 1:
                def e(): "Case."
        if True: pass
        else:
            def g(): "Else."
        def undocumented(): pass
        x = """No docstring."""
        '''
    )
    (roots["alpha"] / "package").mkdir()
    (roots["alpha"] / "package" / "__init__.py").write_text(source)

    found = [d for d in pydocs.scan(["alpha"], roots=roots) if "package" in d.file]

    assert [(d.qualified_name, d.kind, d.text) for d in found] == [
        ("alpha.package", "module", "Module."),
        ("alpha.package.A", "class", "Class.\n\nBody:\n    indented"),
        ("alpha.package.A.b", "function", "Method."),
        ("alpha.package.A.b.c", "function", "Nested."),
        ("alpha.package.d", "function", "Fallback."),
        ("alpha.package.e", "function", "Case."),
        ("alpha.package.g", "function", "Else."),
    ]
    assert {d.file for d in found} == {"alpha/package/__init__.py"}


def test_scan_skips_tests_vendored_code_and_what_cannot_be_parsed(roots: dict[str, Path]) -> None:
    before = pydocs.scan(roots=roots, libraries=["alpha"])
    for name in ("tests/a.py", "x/_vendor/a.py", "conftest.py", "test_a.py", "notes.txt"):
        file = roots["alpha"] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(module("Must not be found."))
    (roots["alpha"] / "broken.py").write_text('"""Broken."""\ndef (:')
    (roots["alpha"] / "null.py").write_bytes(b'"""Null."""\0')
    (roots["alpha"] / "latin.py").write_bytes(b'"""Not UTF-8: \xe9."""')

    assert pydocs.scan(roots=roots, libraries=["alpha"]) == before


def test_scan_reads_other_encodings_and_odd_characters(roots: dict[str, Path]) -> None:
    (roots["beta"] / "z1.py").write_bytes(b'# coding: latin-1\n"""Caf\xe9."""')
    (roots["beta"] / "z2.py").write_text('"""Lone \\ud800 surrogate and bad escape \\d."""')

    texts = [d.text for d in pydocs.scan(["beta"], roots=roots)][-2:]

    assert texts == ["Caf\u00e9.", "Lone ? surrogate and bad escape \\d."]


def test_serial_and_parallel_scans_agree(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scans = []
    for workers in (1, 2, 3):
        monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path / f"cache{workers}"))
        if workers > 1:
            monkeypatch.setattr(_docstrings, "_read_here", None)  # must be done elsewhere
        scans.append(pydocs.scan(roots, roots=roots, workers=workers))

    assert len(scans[0]) == 3 * 12 * 5
    assert scans[0] == scans[1] == scans[2]


def test_scan_works_where_no_process_can_be_started(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    assert len(pydocs.scan(roots, roots=roots, workers=2)) == 3 * 12 * 5


def test_a_worker_reads_alone(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_docstrings.multiprocessing, "parent_process", lambda: "somebody")
    monkeypatch.setattr(_docstrings, "_read_elsewhere", None)

    assert len(pydocs.scan(roots, roots=roots)) == 3 * 12 * 5


SCRIPT = """
import multiprocessing, pathlib, sys
from peftkit.data import pydocs

roots = {name: pathlib.Path(sys.argv[1], name) for name in ("alpha", "beta", "gamma")}

def count(workers):
    return len(pydocs.scan(roots, roots=roots, workers=workers))

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # its workers are daemons
        assert pool.map(count, [None]) == [180]
    assert count(2) == 180
    assert "torch" not in sys.modules
    sizes = pydocs.Sizes(test=8, validation=4, rows_per_file=3, largest_file=9)
    print(pydocs.library(sizes=sizes, roots=roots).fingerprint)
"""


def test_processes_at_once_agree_whatever_their_hash_seed(
    roots: dict[str, Path], tmp_path: Path
) -> None:
    """Two processes build in one cache folder, each from a daemonic worker and then itself."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "site")]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]

    assert [errors for _, errors in outputs] == ["", ""]
    assert len({fingerprint for fingerprint, _ in outputs}) == 1
    assert outputs[0][0].strip() == pydocs.library(sizes=SIZES, roots=roots).fingerprint
    assert not list(cache_folder().rglob("*.part"))


# ---------------------------------------------------------------- how rows are chosen


def test_small_tree_is_split_by_the_rules(roots: dict[str, Path]) -> None:
    source = random.Random(1)
    (roots["gamma"] / "m12.py").write_text(module(*(sentence(source) for _ in range(5))))

    splits = parts(pydocs.library(sizes=SIZES, roots=roots))

    for name, count in (("test", 8), ("validation", 4)):
        assert Counter(row["label"] for row in splits[name]) == dict.fromkeys(range(3), count)
        assert max(Counter(row["file"] for row in splits[name]).values()) == 3
    files = [{row["file"] for row in splits[name]} for name in SPLITS]
    assert sum(map(len, files)) == len(set.union(*files))
    for row in splits["train"] + splits["validation"] + splits["test"]:
        assert sorted(roots)[row["label"]] == row["label_text"] == row["file"].split("/")[0]
    # Gamma has a file more, which the cap takes away again.
    # Per class 12 files of 5 rows; 8 = 3 + 3 + 2 test and 4 = 3 + 1 validation rows from 5 files.
    assert Counter(row["label"] for row in splits["train"]) == dict.fromkeys(range(3), 35)


def test_near_duplicates_of_held_out_rows_leave_train(roots: dict[str, Path]) -> None:
    plain = parts(pydocs.library(sizes=SIZES, roots=roots))
    texts = [row["text"].rstrip(".") for row in plain["test"] + plain["validation"]]
    train_file = roots["alpha"].parent / plain["train"][0]["file"]
    # 9 words have 7 shingles; one more word makes 8, of which 7 are shared: 7 / 8.
    # Every third word exchanged leaves none.
    far = [re.sub(r"(\w+ \w+) \w+", r"\1 mask", text) for text in texts]
    near = [f"{text} again." for text in texts]
    source = train_file.read_text()
    train_file.write_text(source + "\n\n" + module(*near[:2], *far[:2]).replace("def f", "def g"))

    splits = pydocs.library(sizes=SIZES, roots=roots)

    everything = [row["text"] for name in SPLITS for row in parts(splits)[name]]
    held_out = [row["text"] for name in SPLITS[1:] for row in parts(splits)[name]]
    assert not set(near) & set(everything)
    assert set(far[:2]) <= set(everything)
    assert "2 train rows dropped as near-duplicates" in " ".join(splits.notes)
    assert all(sum(jaccard(text, other) > 0.5 for other in everything) == 1 for text in held_out)


def test_held_out_rows_are_not_near_duplicates_of_each_other(roots: dict[str, Path]) -> None:
    """Every file repeats one sentence with a new last word: it can be held out at most once."""
    for library, root in roots.items():
        for i, file in enumerate(sorted(root.iterdir())):
            text = f"The same long sentence stands in every file of {library * 2} but for {i}."
            file.write_text(file.read_text() + "\n\n" + module(text).replace("def f", "def g"))

    splits = parts(pydocs.library(sizes=SIZES, roots=roots))

    repeated = [
        row["label"] for row in splits["test"] + splits["validation"] if "same long" in row["text"]
    ]
    assert max(Counter(repeated).values()) == 1
    assert not [row for row in splits["train"] if "same long" in row["text"]]


def test_text_of_two_libraries_is_dropped_and_repeated_text_is_kept_once(
    roots: dict[str, Path],
) -> None:
    for file in ("alpha/m0.py", "alpha/m1.py", "beta/m0.py", "beta/m1.py", "beta/m2.py"):
        path = roots["alpha"].parent / file
        texts = ["Shared by two: libraries, this one!"]
        texts += ["Only `beta2` says this sentence."] * (file[0] == "b")
        path.write_text(path.read_text() + module(*texts).replace("def f", "def g"))
    (roots["gamma"] / "m0.py").write_text(module("shared by TWO libraries this ONE"))

    rows = _pydocs_library.candidates(pydocs.scan(roots, roots=roots))

    assert [row.library for row in rows if "shared" in row.words] == []
    assert [row.file for row in rows if "only beta2" in row.words] == ["beta/m0.py"]


def test_large_files_stay_in_train(roots: dict[str, Path]) -> None:
    source = random.Random(1)
    for root in roots.values():
        for i in range(4):
            (root / f"m{i}.py").write_text(module(*(sentence(source) for _ in range(10 + i))))

    splits = parts(pydocs.library(sizes=SIZES, roots=roots))

    held_out = {row["file"] for name in SPLITS[1:] for row in splits[name]}
    assert not [file for file in held_out if re.search(r"/m[0-3]\.py", file)]
    assert [row for row in splits["train"] if row["file"].endswith("/m3.py")]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One line that is long enough.", "One line that is long enough."),
        ("Two lines\n  that are one.\n  \nSecond paragraph.", "Two lines that are one."),
        ("Too short.", None),
        ("long " * 81, None),
        (".. deprecated:: 1.2 use something else", None),
        ("Deprecated: please use something else", None),
        ("Parameters\n----------\nx : int of some kind", None),
        ("Args:\n    x: a value of some kind", None),
        ("Parameters of the model, by their names.", "Parameters of the model, by their names."),
        ("TODO write something useful here", None),
        (">>> print('an example only')", None),
    ],
)
def test_first_paragraph(docstring: str, expected: str | None) -> None:
    assert _pydocs_library.first_paragraph(docstring) == expected


def test_names_of_all_libraries_are_masked_in_all_of_them() -> None:
    text = "NumPy's np.array, PyTorch (torch.Tensor) and to_numpy: not npy, torchvision, NumpyArray"
    masked = (
        "library's library.array, library (library.Tensor) and to_library: "
        "not npy, torchvision, NumpyArray"
    )
    docstrings = [
        _docstrings.Docstring(library, f"{library}/a.py", "a", "module", f"{text} {i}")
        for i, library in enumerate(("numpy", "torch"))
    ]

    texts = [row.rows[0]["text"] for row in _pydocs_library.candidates(docstrings)]

    assert texts == [f"{masked} 0", f"{masked} 1"]


def test_near_duplicates_agree_with_brute_force() -> None:
    source = random.Random(2)
    vocabulary = WORDS[:3]  # few words, so that similarities fill the range
    texts = [" ".join(source.choices(vocabulary, k=source.randint(4, 9))) for _ in range(400)]
    index = NearDuplicates()
    for text in texts[:20]:
        index.add(text)

    expected = [any(jaccard(text, known) > 0.5 for known in texts[:20]) for text in texts[20:]]

    assert [index.near(text) for text in texts[20:]] == expected
    assert 20 < sum(expected) < 360


def test_jaccard_of_exactly_one_half_is_not_near() -> None:
    index = NearDuplicates()
    index.add("a b c d e")  # abc bcd cde

    assert jaccard("a b c d e", "a b c d x") == 0.5  # abc bcd of abc bcd cde cdx

    assert not index.near("a b c d x")
    assert index.near("a b c d e f")


# ---------------------------------------------------------------- the cache


def test_cached_results_are_those_that_were_built(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    scanned = pydocs.scan(roots, roots=roots)
    built = pydocs.library(sizes=SIZES, roots=roots)
    monkeypatch.setattr(_docstrings, "read_files", None)
    monkeypatch.setattr(_pydocs_library, "choose", None)

    again = pydocs.library(sizes=SIZES, roots=roots, progress=lambda *step: told.append(step))

    assert pydocs.scan(roots, roots=roots) == scanned
    assert parts(again) == parts(built)
    assert (again.fingerprint, again.notes, again.source) == (
        built.fingerprint,
        built.notes,
        built.source,
    )
    assert again.train.features == built.train.features
    assert told == []


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "other"])
def test_damaged_cache_is_rebuilt(roots: dict[str, Path], damage: str) -> None:
    built = pydocs.library(sizes=SIZES, roots=roots)
    files = sorted((cache_folder() / "pydocs").iterdir())
    sound = {}
    for file in files:
        content = sound[file] = file.read_bytes()
        half = len(content) // 4
        file.write_bytes(
            {
                "truncated": content[: 3 * half],
                "emptied": b"",
                "flipped": content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :],
                "other": content,
            }[damage]
        )
    rows = next(file for file in files if file.name.startswith("library-"))
    if damage == "other":  # a sound file that holds something else
        rows.write_bytes(sound[files[0]])

    again = pydocs.library(sizes=SIZES, roots=roots)

    assert len(files) == 4
    assert (parts(again), again.fingerprint) == (parts(built), built.fingerprint)
    assert rows.read_bytes() == sound[rows]


def test_changed_source_or_size_is_another_corpus(roots: dict[str, Path]) -> None:
    built = pydocs.library(sizes=SIZES, roots=roots)
    smaller = pydocs.library(sizes=Sizes(test=7, validation=4, rows_per_file=3), roots=roots)
    (roots["alpha"] / "m12.py").write_text(module("A docstring that was not here before."))
    changed = pydocs.library(sizes=SIZES, roots=roots)

    assert len({built.fingerprint, smaller.fingerprint, changed.fingerprint}) == 3


def test_another_version_of_a_library_is_scanned_again(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed library is known by its version alone."""
    monkeypatch.syspath_prepend(roots["alpha"].parent)
    monkeypatch.setattr(_pydocs_scan.importlib.metadata, "version", lambda name: "1.0")
    (roots["alpha"] / "__init__.py").write_text("raise RuntimeError('imported')")
    assert len(pydocs.scan(["alpha"])) == 60
    (roots["alpha"] / "m12.py").write_text(module("A docstring that was not here before."))

    assert len(pydocs.scan(["alpha"])) == 60
    monkeypatch.setattr(_pydocs_scan.importlib.metadata, "version", lambda name: "1.1")
    assert len(pydocs.scan(["alpha"])) == 61


def test_cache_that_cannot_be_written_costs_time_only(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = pydocs.library(sizes=SIZES, roots=roots)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path / "file" / "below"))

    with pytest.warns(UserWarning, match="could not be cached"):
        again = pydocs.library(sizes=SIZES, roots=roots)

    assert again.fingerprint == built.fingerprint


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PEFTKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/peftkit")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/somebody/.cache/peftkit")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/caches")
    assert cache_folder() == Path("/var/caches/peftkit")
    monkeypatch.setenv("PEFTKIT_CACHE", "~/kept")
    assert cache_folder() == Path("/home/somebody/kept")


# ---------------------------------------------------------------- what is said


def test_progress_ends_at_the_total_and_stays_quiet_without_a_terminal(
    roots: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def progress(done: int, total: int, what: str) -> None:
        told[what].append((done, total))

    pydocs.library(sizes=SIZES, roots=roots, progress=progress)
    pydocs.library(sizes=Sizes(test=7, validation=4, rows_per_file=3), roots=roots)

    assert sorted(told) == ["comparing texts", "reading docstrings"]
    for steps in told.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert told["reading docstrings"][-1] == (36, 36)
    assert capfd.readouterr() == ("", "")


def test_bar_is_drawn_on_a_terminal(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    pydocs.scan(roots, roots=roots, workers=1)

    output = capsys.readouterr()
    assert output.out == ""
    assert "reading docstrings" in output.err


def test_missing_library_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_pydocs_scan.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InvalidInput, match=r"'sklearn' is not installed.*pip install scikit-learn"):
        pydocs.scan(["sklearn"])


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="folder given for library 'alpha' does not exist"):
        pydocs.scan(["alpha"], roots={"alpha": tmp_path / "nowhere"})


def test_library_with_too_few_docstrings_is_named(roots: dict[str, Path]) -> None:
    for file in sorted(roots["beta"].iterdir())[2:]:
        file.unlink()

    with pytest.raises(InvalidInput, match=r"'beta' has too few docstrings.*6 rows can be held"):
        pydocs.library(sizes=SIZES, roots=roots)


def test_tasks_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pydocs.TASKS, "library", lambda progress: "the splits")

    assert pydocs.load("pydocs/library") == pydocs.load("library") == "the splits"
    with pytest.raises(UnknownName, match=r"Did you mean 'pydocs/library'"):
        pydocs.load("pydocs/libary")
