"""report.html: what it says, that it is the same each time, and that a browser can use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftkit.cli import main
from peftkit.record import Record
from peftkit.reporting.page import PAGE, write_page
from peftkit.reporting.page.quality import COLUMNS
from peftkit.verdict.from_table import read_studied

pytest.importorskip("vl_convert", reason="the extra html is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
METHODS = {"none": (0.5, 0), "lora": (0.78, 3000), "full": (0.8, 90_000)}


def record(method: str, size: int, seed: int, *, noise: float = 0.0, **changes: Any) -> Record:
    level, trained = METHODS[method]
    level += (0.02 if method != "none" else 0.0) * np.log2(size / 64) - noise / 4
    difficulty = np.random.default_rng(7).random(400)
    own = np.random.default_rng([seed, size, trained]).normal(size=400)
    right = difficulty + 0.02 * own < level
    value = float(right.mean())
    task = {"name": "text_classification", "data": "toy", "size": size, "label_noise": noise}
    body: dict[str, Any] = {
        "key": f"{method}{size}{seed}{int(100 * noise)}",
        "recipe": {"method": {"name": method}, "task": task, "seed": seed, "training": {},
                   "backbone": {"name": "toy"}},
        "status": "done",
        "metrics": {"test": {"accuracy": value}, "validation": {"accuracy": value}},
        "predictions": {"item": list(range(400)), "label": [1] * 400,
                        "predicted": [int(x) for x in right]},
        "costs": {"trainable_parameters": trained, "method_parameters": trained,
                  "train_seconds": 1.0 + trained / 1000, "adapter_bytes": 4 * trained,
                  "counted_memory_bytes": {"peak": 3000, "weights": 1000, "activations": 2000}},
        "data": {"fingerprint": "d" * 8, "num_train": size, "num_test": 400, "num_classes": 3,
                 "chance": 1 / 3, "source": "toy"},
        "backbone": {"fingerprint": "w" * 8, "name": "toy"},
        "environment": {"device": "cpu"},
    }  # fmt: skip
    return Record(**{**body, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for method in METHODS:
        for size in (64, 160, 256):
            for noise in (0.0, 0.4):
                for seed in range(3):
                    found = record(method, size, seed, noise=noise)
                    found.write(tmp_path / "records" / f"{found.key}.json")
    failed = record("lora", 256, 3, status="failed", error="KeyError: <script>alert(1)</script>")
    failed.write(tmp_path / "records" / "failed.json")
    trials = [{"method": "lora", "size": 64, "chosen": 1e-3,
               "validation": {"0.001": {"accuracy": 0.8}, "0.003": "diverged"}}]  # fmt: skip
    (tmp_path / "learning_rates.json").write_text(json.dumps(trials))
    return tmp_path


def written(folder: Path, *more: Path, **how: Any) -> str:
    """The page alone: a report's plots take longer than all of these tests."""
    path = write_page(folder, [read_studied(each) for each in (more or (folder,))], **how)
    return path.read_text(encoding="utf-8")


def test_the_page_says_what_the_verdict_says(folder: Path) -> None:
    text = written(folder)
    body = text[: text.index('<script id="charts"')]

    assert "256 examples: " in body
    for angle in ("Performance", "Task complexity", "Amount of data", "Quality of data"):
        assert f"<h3>{angle}</h3>" in body
    assert "There are 3 classes, of which guessing gets 33.3" in body
    amount = re.search(r"<h3>Amount of data</h3><p>(.*?)</p>", body)
    assert amount is not None
    assert amount[1].count("Full is better than each by the margin") == 1
    assert "With 40 % of the training labels wrong" in body
    for path in (folder / "records").glob("*160*.json"):
        path.unlink()
    assert "Between two sizes there is no telling" in written(folder)
    assert "&lt;script&gt;alert(1)" in body
    assert "<script>alert(1)" not in text
    charts = json.loads(re.findall(r'<script id="charts"[^>]*>(.*?)</script>', text, re.S)[0])
    assert set(charts) == {
        "t0-frontier", "t0-curves", "t0-differences", "t0-noise", "t0-rates", "t0-memory",
    }  # fmt: skip
    assert len(charts["t0-frontier"]["data"]["values"]) == 9
    shapes = charts["t0-frontier"]["layer"][-1]["encoding"]["shape"]["scale"]
    assert len(set(shapes["range"])) == len(shapes["domain"])
    assert "stroke" not in shapes["range"]  # which has no area, so that it is not seen
    assert set(charts["t0-frontier"]["usermeta"]["choices"]) == {
        "trainable", "tensors", "seconds", "bytes",
    }  # fmt: skip


def test_charts_and_table_hold_the_numbers_of_the_records(folder: Path) -> None:
    page = written(folder)
    charts = json.loads(re.findall(r'<script id="charts"[^>]*>(.*?)</script>', page, re.S)[0])
    table, verdict = read_studied(folder).verdicts[0]
    contrasts = {(c.method, d.size): c for d in verdict.decisions for c in d.contrasts}
    points = charts["t0-frontier"]["data"]["values"]
    for point in points:
        row = table.row(point["method"], point["size"])
        assert row is not None
        assert row.quality is not None
        mean, half = 100 * row.quality.mean, 100 * row.quality.half_width()
        assert point["score"] == pytest.approx(mean, abs=1e-3)
        assert point["low"] == pytest.approx(max(mean - half, 0), abs=1e-3)
        assert point["high"] == pytest.approx(min(mean + half, 100), abs=1e-3)
    drawn = charts["t0-differences"]["data"]["values"]
    assert len(drawn) == len(contrasts) > 0
    for point in drawn:
        contrast = contrasts[point["method"], point["size"]]
        found = contrast.difference
        assert point["difference"] == pytest.approx(100 * found.mean, abs=1e-3)
        width = point["high"] - point["low"]
        assert width == pytest.approx(200 * found.half_width(), abs=2e-3)
        assert point["p not worse"] == pytest.approx(contrast.p_not_worse, rel=1e-3, abs=1e-4)
    margin = charts["t0-differences"]["layer"][0]["encoding"]["x"]["datum"]
    assert margin == pytest.approx(100 * verdict.margin)
    lora = table.row("lora", 256)
    assert lora is not None
    assert lora.versus_full is not None
    mean, half = 100 * lora.versus_full.mean, 100 * lora.versus_full.half_width()
    digits = next(digits for _, field, digits in COLUMNS if field == "versus_full")
    assert f'>{mean:+.{digits}f} <span class="soft">&plusmn; {half:.{digits}f}</span>' in page


def test_a_price_is_what_a_point_over_the_untrained_backbone_takes(folder: Path) -> None:
    page = written(folder, price_per_hour=36.0)
    row = re.search(r"<code>full</code></td>(?:<td[^>]*>[^<]*</td>){6}</tr>", page)
    assert row is not None
    gain, seconds, joules, peak, megabytes, money = re.findall(r">([^<]*)</td>", row[0])[1:]
    scores = {
        method: np.mean(
            [record(method, 256, seed).metrics["test"]["accuracy"] for seed in range(3)]
        )
        for method in ("none", "full")
    }
    assert float(gain) == pytest.approx(100 * (scores["full"] - scores["none"]), abs=0.01)
    assert float(seconds) == pytest.approx(91 / float(gain), rel=0.01)
    assert float(money) == pytest.approx(float(seconds) / 100, rel=0.01)
    assert (joules, peak, megabytes) == ("-", "-", "0.36")


def test_capacity_says_where_an_adapter_is_too_small(folder: Path, tmp_path: Path) -> None:
    assert "can store 6.00k (2 a trained parameter)" in written(folder)
    for seed in range(3):
        for method in ("lora", "full"):
            found = record(method, 256, seed)
            found.costs["trainable_parameters"] = 100
            found.write(tmp_path / "small" / "records" / f"{found.key}.json")
    assert "may be too small: <code>lora</code> 200" in written(tmp_path / "small")


def test_laws_are_fitted_where_there_are_sizes_enough(tmp_path: Path) -> None:
    for size in (64, 128, 256, 512):
        for seed in range(3):
            for method in ("none", "full"):
                found = record(method, size, seed)
                found.write(tmp_path / "records" / f"{found.key}.json")
    page = written(tmp_path)
    assert re.search(
        r"<code>full</code>: error [\d.e-]+ n\^-[\d.]+ \+ [\d.e-]+; of the smaller", page
    )
    charts = json.loads(re.search(r'id="charts"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert charts["t0-curves"]["layer"][0]["mark"]["strokeDash"]


def test_several_folders_make_one_report_in_a_folder_of_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for seed in range(3):
        for method in ("none", "full"):
            found = record(method, 64, seed)
            found.data["fingerprint"] = "e" * 8
            found.write(other / "records" / f"{found.key}.json")
    for folders in ([str(folder), str(other)], ["--out", str(tmp_path / "none")]):
        assert main(["report", *folders]) == 2
        assert "--out" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["report", str(folder), str(other), "--out", str(tmp_path / "both")]) == 0
    page = (tmp_path / "both" / PAGE).read_text(encoding="utf-8")
    assert page.count("<h1>") == 2
    assert (tmp_path / "both" / "table.csv").exists()
    assert not (other / PAGE).exists()


def test_methods_are_summed_up_over_tasks_where_there_are_enough(tmp_path: Path) -> None:
    folders = [tmp_path / f"task{number}" for number in range(5)]
    for number, folder in enumerate(folders):
        for seed in range(2):
            for method in METHODS:
                found = record(method, 64, seed)
                found.data["fingerprint"] = str(number) * 8
                found.write(folder / "records" / f"{found.key}.json")
    page = written(tmp_path, *folders)
    section = page[page.index("<h1>Across tasks") : page.index("</table>")]
    cells = dict(re.findall(r"<code>(\w+)</code></td>.*?([\d-]+)</td></tr>", section))
    assert cells["none"] == "100"
    assert cells["full"] == "-"
    assert "Across tasks" not in written(tmp_path, *folders[:4])


def test_two_reports_of_the_same_records_are_the_same_bytes(folder: Path) -> None:
    first = written(folder)

    assert written(folder) == first


def test_a_page_of_nothing_that_worked_and_of_references_alone_is_written(tmp_path: Path) -> None:
    for size in (64, 256):
        failed = record("full", size, 0, status="failed", error="RuntimeError: no")
        failed.write(tmp_path / "failed" / "records" / f"{size}.json")
        words = record("none", size, 0)
        words.recipe["method"]["name"] = "tfidf"
        words.write(tmp_path / "references" / "records" / f"{size}.json")

    assert "Cells without a result" in written(tmp_path / "failed")
    assert "tfidf" in written(tmp_path / "references")


def test_one_seed_of_a_metric_without_items_has_no_p_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("lora", "full"):
        found = record(method, 64, 0, predictions={})
        found.write(tmp_path / "records" / f"{method}.json")

    assert "undecided" in written(tmp_path)
    capsys.readouterr()
    assert main(["verdict", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed[0]["decisions"][0]["contrasts"][0]["p_not_worse"] is None


def test_nothing_is_fetched(folder: Path) -> None:
    text = written(folder)
    body = text[: text.index("<script")]

    assert not re.findall(r'(?:src|href)="', body)
    assert "@import" not in body


# Clicks as a reader would, and leaves what it found where --dump-dom shows it.
CLICKS = """
<script type="module">
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const found = { errors: window.found_errors };
for (let i = 0; i < 100 && document.querySelectorAll(".chart svg").length < 6; i++) await wait(100);
found.charts = document.querySelectorAll(".chart svg").length;
const table = document.querySelector("table.quality");
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
const heads = [...table.tHead.rows[0].cells];
const score = heads.find((cell) => cell.textContent.startsWith("accuracy")).firstChild;
score.click();
found.down = names();
score.click();
found.up = names();
const title = () => document.querySelector("#t0-frontier svg").textContent;
found.before = title().includes("trainable parameters");
const choice = document.querySelector("select[data-chart=t0-frontier]");
choice.value = "seconds";
choice.dispatchEvent(new Event("change"));
await wait(1500);
found.after = title().includes("training seconds");
found.wide = document.documentElement.scrollWidth <= window.innerWidth;
const out = document.createElement("pre");
out.id = "found";
out.textContent = JSON.stringify(found);
document.body.append(out);
</script>
"""
ERRORS = """<script>
window.found_errors = [];
window.addEventListener("error", (e) => window.found_errors.push(String(e.message)));
window.addEventListener("unhandledrejection", (e) => window.found_errors.push(String(e.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...a) => window.found_errors.push(a.join());
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_draws_sorts_and_changes_axes(folder: Path, width: int) -> None:
    text = written(folder).replace("<head>", f"<head>{ERRORS}", 1)
    before, _, after = text.rpartition("</body>")  # the library has such words in it too
    text = f"{before}{CLICKS}</body>{after}"
    page = folder / "clicked.html"
    page.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-sync", f"--window-size={width},2000",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)

    assert match, done.stderr[-2000:]
    found = json.loads(
        match.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    assert found["errors"] == []
    assert found["charts"] == 6
    assert found["up"] == found["down"][::-1]
    assert found["down"][0] == "full"
    assert found["before"]
    assert found["after"]
    assert found["wide"]
