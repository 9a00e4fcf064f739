"""report.html, its pictures, and attention maps, on comparisons that are made up."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from comparison.attention_map import attention_picture, draw_attention_map, read_attention
from comparison.comparing import make_pairs
from comparison.drawing import LIGHT, style
from comparison.pictures import (
    confusion_shares,
    contrasting,
    pareto_front,
    pictures_of,
    reliability,
    reliability_curve,
    styles_of,
    write_pictures,
)
from comparison.report import (
    best_by_examples,
    leading_number,
    report_page,
    score_table,
    verdict_card,
    write_report,
)
from comparison.runs import Comparison, Entry, Measure, Pair, Run
from comparison.statistics import mean_interval
from config import UserError

ROOT = Path(__file__).resolve().parents[1]
EVIL = '<script>alert("1")</script>&<img src=http://x.invalid/y>'
STRATEGIES = {  # name -> accuracy, seconds, bytes, trained parameters, calibration
    "ulmfit": (0.47, 130.0, 2.0e9, 5_389_056, 0.85),
    "full": (0.465, 95.0, 2.1e9, 5_389_056, 0.7),
    "lora": (0.455, 61.0, 1.6e9, 74_240, 1.1),
    "prefix": (0.40, 58.0, 1.5e9, 41_000, 1.1),
    "head": (0.35, 12.0, 1.2e9, 1_280, 1.3),
}
CLASSES = ["very negative", "negative", "neutral", "positive", "very positive"]
KINDS = ("negation", "swapped roles", "antonym", "changed number")
COUPLET = ["Thus do I rest my heart upon the day,", "And what was lost comes home and learns to stay."]


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons, made up
# ---------------------------------------------------------------------------------------------------------------------


def make_run(
    folder: Path, task: str, dataset: str, strategy: str, seed: int, dev: dict[str, float], history: list[Any],
    spent: tuple[float, float, int], **more: Any,
) -> Run:  # fmt: skip
    seconds, memory, trained = spent
    cost = {
        "train_seconds": 0.8 * seconds, "total_seconds": seconds, "examples_per_second": 5000 / seconds,
        "peak_memory_bytes": memory, "trainable_parameters": trained, "total_parameters": 5_389_056,
    }  # fmt: skip
    metrics = {
        "schema": 1, "task": task, "dataset": dataset, "model": "mini", "strategy": strategy, "seed": seed, "dev": dev,
        "dev_last": history[-1]["dev"], "best_epoch": 3, "epochs": len(history), "history": history, "cost": cost,
    }  # fmt: skip
    environment = {
        "python": "3.11.9", "packages": {"torch": "2.13.0", "numpy": "2.4.6"}, "device": "CPU", "threads": 2,
        "git_commit": "f96af96", "git_dirty": True, "platform": "Linux",
        "argv": ["/home/me/gpt2/classifier.py", "--strategy", strategy, "--seed", str(seed), "--data-dir", "my data"],
    }  # fmt: skip
    config = {
        "settings": {"seed": seed, "train_fraction": more.pop("fraction", None)},
        "environment": environment, "model": {"used": "mini"},
        "data": {"files": {"train": {"rows": more.pop("rows", 8544)}}, "label_names": CLASSES},
    }  # fmt: skip
    return Run(folder / f"{task}-{dataset}-mini-{strategy}-s{seed}", config, metrics | more)


def make_entry(
    folder: Path, name: str, numbers: tuple[float, ...], labels: np.ndarray, random: np.random.Generator, seeds: int,
    dataset: str, **more: Any,
) -> Entry:  # fmt: skip
    accuracy, seconds, memory, trained, temperature = numbers
    n, classes = len(labels), len(CLASSES)
    ease = np.random.default_rng(7).normal(size=n)  # some examples are hard for all
    logits = 0.9 * np.abs(np.arange(classes) - labels[:, None]) * -1.0 + ease[:, None] * np.eye(classes)[labels]
    probabilities, runs = [], []
    for seed in range(1, seeds + 1):
        noisy = logits + random.normal(scale=1.9 - 2 * accuracy, size=(n, classes))
        shares = np.exp(noisy / temperature)
        probabilities.append(shares / shares.sum(axis=1, keepdims=True))
        reached = float((probabilities[-1].argmax(axis=1) == labels).mean())
        history = [
            {
                "epoch": epoch, "train_loss": 1.6 * 0.7**epoch + 0.2 * (1 - accuracy), "seconds": 1.0,
                "dev": {"accuracy": reached - (epoch != 3) * (0.02 - 0.004 * random.normal()), "loss": 1.2, "n": n},
            }
            for epoch in range(1, 7)
        ]  # fmt: skip
        dev = {"accuracy": reached, "loss": 1.2, "n": n}
        spent = (seconds * (1 + 0.05 * seed), memory, int(trained))
        runs.append(make_run(folder, "sentiment", dataset, name, seed, dev, history, spent, **dict(more)))
    stacked = np.stack(probabilities)
    scores = (stacked.argmax(axis=2) == labels).astype(float)
    value = float(scores.mean())
    return Entry(
        name, "run", "mini", name, tuple(runs), scores, value, mean_interval(scores), stacked, stacked.argmax(axis=2)
    )


def make_comparison(
    folder: Path, strategies: dict[str, tuple[float, ...]] = STRATEGIES, *, n: int = 240, seeds: int = 3,
    dataset: str = "sst", texts: dict[str, str] | None = None,
) -> Comparison:  # fmt: skip
    """A comparison of classifiers, with a floor and a published number."""
    random = np.random.default_rng(0)
    labels = random.integers(0, len(CLASSES), n)
    entries = []
    for name, numbers in strategies.items():
        probes = {kind: {"accuracy": float(random.uniform(0.2, 0.9)), "n": 15} for kind in (*KINDS, "all")}
        entries.append(make_entry(folder, name, numbers, labels, random, seeds, dataset, probes=probes))
    majority = (labels == np.bincount(labels).argmax()).astype(float)[None]
    entries.append(
        Entry("majority class", "floor", "", "majority class", (), majority, float(majority.mean()),
              mean_interval(majority), note="the most frequent class")
    )  # fmt: skip
    entries.sort(key=lambda entry: -entry.value)
    measure = Measure("accuracy", "accuracy")
    pairs = tuple(make_pairs(entries, measure))
    entries.insert(0, Entry("reference report", "published", "gpt2", "full", (), None, 0.518, note="a report"))
    ids = [f"e{i:03d}" for i in range(n)]
    texts = texts if texts is not None else {id_: f"a film number {i}" for i, id_ in enumerate(ids)}
    problems = ("runs/x: failed: loss is NaN; run its command again",)
    return Comparison(
        "sentiment", dataset, measure, ids, labels, CLASSES, texts, tuple(entries), pairs, problems, ("a note",)
    )


def make_poems(folder: Path) -> Comparison:
    """A comparison of sonnet runs, with the poems in their folders."""
    random = np.random.default_rng(1)
    entries = []
    for name, rhyme in {"unlikelihood": 0.5, "full": 0.35, "prefix": 0.2}.items():
        runs, rows = [], []
        for seed in (1, 2, 3):
            rows.append(np.clip(random.normal(rhyme, 0.2, size=24), 0, 1))
            dev = {
                "perplexity": 41.0, "rhyme_accuracy": float(rows[-1].mean()), "near_rhyme": 0.1, "given_rhyme": 0.9,
                "ten_syllable_lines": 0.7, "iambic_lines": 0.5, "lines_14": 1.0, "distinct_2": 0.9, "seq_rep_4": 0.02,
            }  # fmt: skip
            history = [{"epoch": e, "train_loss": 4 - 0.1 * e, "dev": {"perplexity": 60 - e, "loss": 4 - 0.05 * e}}
                       for e in range(1, 5)]  # fmt: skip
            run = make_run(folder, "sonnet", "shakespeare", name, seed, dev, history, (40.0 + 9 * rhyme, 1e9, 9000))
            (run.folder / "predictions").mkdir(parents=True)
            poems = [
                "\n".join([str(number), *[f"{name} line {i} of the night {EVIL if i == 5 else ''}" for i in range(12)],
                           *(f"  {line}" for line in COUPLET)])
                for number in (21, 22, 23)
            ]  # fmt: skip
            (run.folder / "predictions" / "generated_sonnets_dev.txt").write_text(
                "--Generated Sonnets-- \n\n" + "".join(f"\n{poem}\n\n" for poem in poems)
            )
            runs.append(run)
        scores = np.stack(rows)
        value = float(scores.mean())
        entries.append(Entry(name, "run", "mini", name, tuple(runs), scores, value, mean_interval(scores)))
    measure = Measure("rhyme_accuracy", "rhyme")
    return Comparison(
        "sonnet", "shakespeare", measure, [str(i) for i in range(24)], None, [], {}, tuple(entries),
        tuple(make_pairs(entries, measure)), (),
    )  # fmt: skip


def make_fractions(folder: Path) -> Comparison:
    """Strategies on growing shares of the training set; what single examples were taken for is not known."""
    random = np.random.default_rng(2)
    labels = random.integers(0, len(CLASSES), 120)
    entries = []
    for name, start in {"full": 0.30, "head": 0.34}.items():
        for fraction in (0.05, 0.1, 0.25, 0.5, 1.0):
            numbers = (
                start + (0.16 if name == "full" else 0.04) * (1 + np.log10(fraction)),
                60 * fraction,
                1e9,
                9e5,
                1,
            )
            made = make_entry(
                folder, name, numbers, labels, random, 2, "sst", fraction=fraction, rows=int(8544 * fraction)
            )
            full_name = f"{name} (train-fraction {fraction:g})"
            settings = {} if fraction == 1.0 else {"train-fraction": fraction}
            entries.append(
                Entry(full_name, "run", "mini", name, made.runs, made.scores, made.value, made.interval,
                      settings=settings,)
            )  # fmt: skip
    entries.sort(key=lambda entry: -entry.value)
    measure = Measure("accuracy", "accuracy")
    ids = [f"e{i:03d}" for i in range(len(labels))]
    return Comparison(
        "sentiment", "sst", measure, ids, labels, CLASSES, {}, tuple(entries), tuple(make_pairs(entries, measure)), ()
    )


# ---------------------------------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page as a list of elements in their order: name, attributes, and the text inside each."""

    EMPTY = frozenset({"meta", "br", "col", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.stack: list[int] = []
        self.feed(text)
        assert not self.stack, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in self.EMPTY:
            self.stack.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.stack.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self.stack:
            self.elements[place][2].append(data)

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(tag, attributes, "".join(text)) for tag, attributes, text in self.elements if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [text for _, _, text in self.all(*tags)]


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    folder = tmp_path_factory.mktemp("runs")
    return [make_comparison(folder), make_poems(folder / "poems"), make_fractions(folder)]


@pytest.fixture(scope="module")
def written(comparisons: list[Comparison], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(comparisons, path, title=f"A title {EVIL}", commands=["python compare.py runs", f"echo {EVIL}"])
    return path


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(page: Page, written: Path) -> None:
    for tag, attributes, _ in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")  # type: ignore[union-attr]
        assert not any(name.startswith("on") for name in attributes), attributes
    text = written.read_text(encoding="utf-8")
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_only_the_page_s_own_script_may_run(page: Page) -> None:
    ((_, _, script),) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_what_comes_from_outside_is_text(page: Page) -> None:
    """It is in the title, a command and the poems."""
    assert page.texts("h1", "title") == [f"A title {EVIL}"] * 2
    assert f"echo {EVIL}" in page.texts("pre")[0]
    assert sum(EVIL in text for text in page.texts("li")) == 9


def test_names_texts_and_problems_are_text(tmp_path: Path) -> None:
    strategies = {EVIL: STRATEGIES["full"], "head": STRATEGIES["head"]}
    made = make_comparison(tmp_path, strategies, n=30, seeds=2, texts={f"e{i:03d}": EVIL for i in range(30)})
    made = dataclasses.replace(made, dataset=EVIL, problems=(EVIL,), notes=(EVIL,), label_names=[EVIL] * 5)
    page = Page(report_page([made], title="t", commands=[]))
    assert len(page.all("script")) == 1 and not page.all("img")
    assert page.texts("h2")[1] == f"Sentiment on {EVIL}"
    assert EVIL in page.texts("blockquote") and EVIL in page.texts("li")
    assert all(attributes["aria-label"] for _, attributes, _ in page.all("svg") if "role" in attributes)


def test_headings_are_in_order_and_ids_unique(page: Page) -> None:
    levels = [int(tag[1]) for tag, _, _ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {str(a["href"])[1:] for _, a, _ in page.all("a")}
    assert anchors <= set(ids)
    assert page.texts("h2") == ["Verdict", "Sentiment on sst (1)", "Sonnets on shakespeare", "Sentiment on sst (2)",
                                "How to read this", "Repeat it"]  # fmt: skip


def test_every_picture_says_what_it_shows(page: Page) -> None:
    pictures = [attributes for _, attributes, _ in page.all("svg") if attributes.get("aria-hidden") != "true"]
    assert len(pictures) > 20
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 20 for a in pictures)
    captions = page.texts("figcaption")
    assert len(captions) == len(page.all("figure")) and all(len(text) > 40 for text in captions)


def test_tables_can_be_sorted(page: Page, comparisons: list[Comparison]) -> None:
    html_ = score_table(comparisons[0])
    table = Page(html_)
    heads = [attributes for _, attributes, _ in table.all("th") if attributes.get("scope") == "col"]
    assert len(table.all("button")) == len(heads)
    assert [a.get("aria-sort") for a in heads if "aria-sort" in a] == ["descending"]
    names = table.texts("button")
    cells = [a["data-value"] for _, a, _ in table.all("td")]
    rows = [cells[i : i + len(heads) - 1] for i in range(0, len(cells), len(heads) - 1)]
    column = names.index("Accuracy") - 1
    values = [float(str(row[column])) for row in rows]
    assert values == pytest.approx([round(entry.value, 3) for entry in comparisons[0].entries])
    times = {
        name: row[names.index("Time of a run") - 1]
        for name, row in zip(table.texts("th")[len(heads) :], rows, strict=True)
    }
    assert float(str(times["ulmfit"])) == 120 and times["majority class floor"] == ""  # 2 min; no time at all
    assert all(a.get("class") == "scroll" and a["tabindex"] == "0" for _, a, _ in table.all("div"))


def test_a_first_click_brings_the_best_to_the_top(tmp_path: Path) -> None:
    made = make_comparison(tmp_path, n=30)
    for entry in made.entries:
        for run in entry.runs:
            run.metrics["dev"].update(calibration_error=0.1, perplexity=9.0, macro_f1=0.4)  # type: ignore[attr-defined]
    made = dataclasses.replace(made, measure=Measure("loss", "loss", higher_is_better=False, is_share=False))
    heads = Page(score_table(made)).all("th", "button")
    first = {name: a.get("data-numeric") for (_, a, _), (_, _, name) in itertools.pairwise(heads)}
    lower = ("Loss", "95 % CI", "Calibration error", "Perplexity", "Best epoch", "Last epoch")
    assert {name: first[name] for name in (*lower, "Macro-F1")} == dict.fromkeys(lower, "low") | {"Macro-F1": "high"}


def test_numbers_at_the_beginning_of_a_cell() -> None:
    cells = {"0.401 ± 0.010": 0.401, "5,389,056": 5389056, "12 s": 12, "2 min": 120, "1.5 h": 5400, "3 3 2 of 6": 3,
             "−1.5": -1.5, "0.9 GiB": 0.9, "": None, "not run": None, "2 minutes": 2, "-0.2 to 0.1": -0.2}  # fmt: skip
    assert {text: leading_number(text) for text in cells} == cells


def test_no_missing_number_is_shown(tmp_path: Path) -> None:
    """One seed, no cost, no history, nothing that the runs' environment says."""
    made = make_comparison(tmp_path, {name: STRATEGIES[name] for name in ("full", "head")}, n=20, seeds=1)
    bare = {"cost": {"train_seconds": None, "peak_memory_bytes": float("nan")}, "history": [], "dev_last": None}

    def stripped(entry: Entry) -> Entry:
        runs = tuple(Run(run.folder, {}, {**run.metrics, **bare, "best_epoch": None}) for run in entry.runs)
        return dataclasses.replace(entry, runs=runs, interval=(-math.inf, math.inf))

    made = dataclasses.replace(made, entries=tuple(map(stripped, made.entries)))
    page = Page(report_page([made], title="t", commands=[]))
    shown = " ".join([*page.texts("main"), *(str(a.get("aria-label")) for _, a, _ in page.all("svg"))])
    assert not re.search(r"\b(nan|None|inf)\b", shown)
    assert "One seed only of" in shown


def warnings_on(comparison: Comparison) -> list[str]:
    card = Page(verdict_card(comparison, "a", "b"))
    return [text for _, attributes, text in card.all("p") if attributes.get("class") == "warning"]


def reversed_pair(pair: Pair) -> Pair:
    return dataclasses.replace(pair, a=pair.b, b=pair.a)


def test_the_verdict_comes_first_and_warns(comparisons: list[Comparison]) -> None:
    made = comparisons[0]
    card = Page(verdict_card(made, "task-1", "Sentiment on sst"))
    paragraphs = card.texts("p")
    assert paragraphs[0].startswith(f"{made.best.name} has the best accuracy, {made.best.value:.3f}")
    runner_up = next(entry for entry in made.measured[1:] if entry.runs)
    pair = made.pair(made.best.name, runner_up.name)
    assert pair is not None and pair.verdict in paragraphs[1]
    assert "a run, 2.0 GiB of memory and 5,389,056 trained parameters" in paragraphs[1]
    assert len(paragraphs) == 2
    unsure = tuple(dataclasses.replace(pair, p_adjusted=1.0) for pair in made.pairs)
    floor = dataclasses.replace(made, dataset="sst-sample", pairs=unsure)
    assert "not shown to be better than “majority class”" in warnings_on(floor)[0]
    assert "bundled sample" in warnings_on(floor)[1]
    floors = [entry for entry in made.entries if entry.kind == "floor"]
    best_is_floor = dataclasses.replace(made, entries=(*floors, *(e for e in made.entries if e.kind == "run")))
    needless = f"“{floors[0].name}” needs no GPT-2 and has the best score: fine-tuning is "
    assert warnings_on(best_is_floor)[0] == f"{needless}not worth it here."
    untold = dataclasses.replace(best_is_floor, pairs=tuple(reversed_pair(pair) for pair in unsure))
    assert warnings_on(untold)[0] == f"{needless}not shown to be worth it here."


def test_the_best_with_so_many_examples(comparisons: list[Comparison]) -> None:
    (sentence,) = best_by_examples(comparisons[2])
    assert re.fullmatch(r"The best score with .*: 427 \(\w+\), 854 \(\w+\), .* and 8,544 \(\w+\)\.", sentence)
    assert best_by_examples(comparisons[0]) == []


def test_poems_stand_side_by_side(page: Page, comparisons: list[Comparison]) -> None:
    poets = [entry for _, entry in contrasting(comparisons[1])]
    names = [text for text in page.texts("h4") if ", seed " in text]
    assert names == [f"{entry.name}, seed 1" for entry in poets] * 3
    given = [text for _, a, text in page.all("span") if a.get("class") == "given"]
    assert len(given) == 3 * 3 * 3
    assert "unlikelihood line 0 of the night" in given


def test_commands_and_versions(page: Page) -> None:
    facts = page.texts("dd")
    assert "numpy 2.4.6, torch 2.13.0" in facts and "f96af96 with uncommitted changes" in facts
    assert page.texts("pre")[0].splitlines()[0] == "python compare.py runs"


def test_problems_are_told(page: Page) -> None:
    assert "runs/x: failed: loss is NaN; run its command again" in page.texts("li")


def test_the_same_runs_give_the_same_bytes(comparisons: list[Comparison], page: Page) -> None:
    """The pictures are the part of a page that a library writes."""
    again = [svg for picture in pictures_of(comparisons[1]) for svg in picture.svgs("task-2-")]
    for svg in again:
        assert svg in page.source
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page.source)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def test_pictures_of_each_task(page: Page) -> None:
    titles = page.texts("h4")
    of_all = ["Score against cost", "Learning curves"]
    of_classes = ["Which classes are mistaken for which", "Can the probabilities be believed?"]
    of_classes += ["Where strategies disagree"]
    for title, count in (
        *((title, 3) for title in of_all),
        *((title, 1) for title in of_classes),
        ("What the dev score hides", 1),
        ("Rhyme and meter", 1),
        ("Score against training examples", 1),
    ):
        assert titles.count(title) == count, title


def test_pictures_as_files(comparisons: list[Comparison], tmp_path: Path) -> None:
    paths = write_pictures(comparisons[1:2], tmp_path)
    names = ["differences", "cost-1", "cost-2", "cost-3", "curves-1", "curves-2", "poems"]
    assert [path.relative_to(tmp_path) for path in paths] == [Path(f"sonnet-shakespeare/{name}.png") for name in names]
    for path in paths:
        image = imread(path)  # (height, width, 3), and a fourth for what is not opaque
        assert (image[0, 0] == 1).all() and image.shape[2] in (3, 4) and (image[..., 3:] == 1).all()


def test_many_entries_leave_room_for_the_axes(tmp_path: Path) -> None:
    many = {f"ulmfit-static (lr {i})": (0.3 + i / 200, 90.0 - i, 1e9, 1e6, 1.0) for i in range(20)}
    few = dict(list(many.items())[:16])
    for strategies, n_named in ((few, 16), (many, 8)):
        made = make_comparison(tmp_path, strategies, n=120, seeds=1)
        picture = next(picture for picture in pictures_of(made) if picture.name == "cost")
        assert ("only those on the line and the 8 best have names" in picture.caption) == (strategies is many)
        for _, figure in picture.panels:
            figure.draw_without_rendering()
            (axes,), (legend,) = figure.axes, figure.legends
            names = {text.get_text() for text in legend.get_texts()}
            assert names >= {entry.name for entry in made.measured if entry.runs and entry in made.measured[:n_named]}
            assert len(names) <= 16 and axes.bbox.height > 1.9 * figure.dpi
            assert figure.bbox.x0 <= legend.get_window_extent().x0 and legend.get_window_extent().x1 <= figure.bbox.x1
            assert legend.get_window_extent().y1 <= axes.bbox.y0


def test_names_that_differ_at_the_end_stay_different(tmp_path: Path) -> None:
    names = [f"ulmfit-static (train-fraction {share})" for share in ("0.05", "0.1")]
    made = make_comparison(tmp_path, dict.fromkeys([*names, "head"], STRATEGIES["full"]), n=40)
    (picture,) = (picture for picture in pictures_of(made) if picture.name == "disagreement")
    labels = [label.get_text() for label in picture.panels[0][1].axes[0].get_yticklabels()]
    assert len(set(labels)) == 3 and {label[-6:] for label in labels} == {" 0.05)", "n 0.1)", "head"}


def test_styles_differ() -> None:
    seen = {(one.colour, one.marker) for one in map(style, range(48))}
    assert len(seen) == 48


def test_dollars_are_no_formula(tmp_path: Path) -> None:
    r"""matplotlib would take "$_$" for one, and breaks off."""
    odd = "from $_$ to $^$"
    made = make_comparison(tmp_path, {odd: STRATEGIES["full"], "head": STRATEGIES["head"]}, n=30)
    made = dataclasses.replace(made, label_names=[odd, *CLASSES[1:]])
    assert write_pictures([made], tmp_path / "pictures")
    svgs = "".join(svg for picture in pictures_of(made) for svg in picture.svgs())
    assert f">{odd}<" in svgs
    attention = attention_picture([odd, "b"], np.tril(np.full((1, 1, 2, 2), 0.5)))
    assert odd in attention.svgs()[0]


def test_one_run_alone_has_pictures_of_its_own(tmp_path: Path) -> None:
    made = make_comparison(tmp_path, {"full": STRATEGIES["full"]}, n=30, seeds=1)
    made = dataclasses.replace(made, entries=(made.entry("full"),), pairs=())
    assert [picture.name for picture in pictures_of(made)] == ["curves", "confusion", "reliability", "probes"]


def test_text_stays_text_and_colours_are_the_page_s(written: Path) -> None:
    svgs = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', written.read_text(encoding="utf-8"), re.DOTALL)
    assert all("<text" in svg for svg in svgs)
    drawn = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", " ".join(svgs)))
    assert all(colour == "none" or colour.startswith("var(--") for colour in drawn), drawn
    assert {colour[6:-1] for colour in drawn if colour != "none"} <= set(LIGHT)
    assert "DejaVu" not in " ".join(svgs)


def test_contrast_in_light_and_dark() -> None:
    """WCAG 2: text against its background at least 4.5 to 1, lines and marks 3 to 1."""
    css = (ROOT / "comparison" / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root {(.*?)}", css, re.DOTALL)
    )
    assert {role: light[role] for role in LIGHT if role != "surface"} == {
        r: c for r, c in LIGHT.items() if r != "surface"
    }
    assert set(dark) == set(light)
    for colours in (light, dark):
        for back in ("surface", "raised"):
            for role in ("ink", "muted", "mark"):
                assert contrast(colours[role], colours[back]) >= 4.5, (role, back)
        assert contrast(colours["warn"], colours["warn-back"]) >= 4.5
        for role in colours:
            if role.startswith("series"):
                assert contrast(colours[role], colours["surface"]) >= 3, role
        darkest = mixed(colours["series-1"], colours["surface"], 0.5)  # of a shaded cell
        assert contrast(colours["ink"], darkest) >= 4.5


def channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def mixed(colour: str, back: str, alpha: float) -> str:
    both = zip(channels(colour), channels(back), strict=True)
    return "#" + "".join(f"{round(255 * (alpha * a + (1 - alpha) * b)):02x}" for a, b in both)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_pareto_front() -> None:
    points = [(1.0, 0.3), (2.0, 0.5), (3.0, 0.4), (4.0, 0.5), (5.0, 0.6), (1.0, 0.3)]
    assert pareto_front(points) == [True, True, False, False, True, True]
    assert pareto_front([(1.0, 30.0), (2.0, 40.0), (3.0, 20.0)], higher_is_better=False) == [True, False, True]


def test_confusion_shares() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([[0, 1, 1, 1], [0, 0, 1, 0]])
    shares = confusion_shares(labels, predicted, 3)
    np.testing.assert_allclose(shares[:2], [[0.75, 0.25, 0], [0.25, 0.75, 0]])
    assert np.isnan(shares[2]).all()


def test_reliability_curve() -> None:
    probabilities = np.array([[[0.95, 0.05], [0.91, 0.09], [0.4, 0.6]], [[0.93, 0.07], [0.5, 0.5], [0.45, 0.55]]])
    confidence, right, share = reliability_curve(np.array([0, 1, 1]), probabilities)
    np.testing.assert_allclose(confidence, [0.5, 0.55, 0.6, 0.92, 0.95])
    np.testing.assert_allclose(right, [0.0, 1.0, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(share, [1 / 6, 1 / 6, 1 / 6, 2 / 6, 1 / 6])


def test_the_reliability_diagram_says_what_the_table_says(comparisons: list[Comparison]) -> None:
    from training.classification.metrics import classification_metrics

    made = comparisons[0]
    assert made.labels is not None and made.best.probabilities is not None
    errors = [classification_metrics(made.labels, p)["calibration_error"] for p in made.best.probabilities]
    picture = reliability(made, styles_of(made))
    assert picture is not None
    ((alt, figure),) = picture.panels
    text = f"{made.best.name} (best), calibration error {np.mean(errors):.3f}"
    assert text in [label.get_text() for label in figure.legends[0].get_texts()]
    assert f"{made.best.name} {np.mean(errors):.3f}" in alt


# ---------------------------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished_run(tmp_path: Path, still_model: Path) -> Path:
    """A run of classification, as far as its attention is concerned."""
    from models.classifier import GPT2Classifier
    from models.gpt2 import GPT2Model
    from models.tokenizer import load_tokenizer, save_tokenizer
    from storage import write_json

    run = tmp_path / "run"
    gpt2 = GPT2Model.from_pretrained(still_model)
    (run / "best").mkdir(parents=True)
    GPT2Classifier(gpt2, 2).save_pretrained(run / "best", ["bad", "good"])
    save_tokenizer(load_tokenizer(still_model, gpt2.config), run / "best")
    write_json(run / "config.json", {"task": "sentiment", "settings": {}, "data": {"label_names": ["bad", "good"]}})
    write_json(run / "metrics.json", {"task": "sentiment"})
    return run


def test_attention_is_that_of_transformers(finished_run: Path) -> None:
    import torch
    import transformers

    tokens, attentions = read_attention(finished_run, "A superb FILM with music")
    reference = transformers.GPT2Model.from_pretrained(finished_run / "best", attn_implementation="eager").eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(finished_run / "best" / "tokenizer.json"))
    ids = tokenizer("a superb film with music", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = torch.cat(reference(ids, output_attentions=True).attentions).numpy()
    assert attentions.shape == (2, 2, len(tokens), len(tokens)) and "".join(tokens) == "asuperbfilmwithmusic"
    np.testing.assert_allclose(attentions, expected, atol=1e-5)


@pytest.fixture
def task_run(tmp_path: Path, still_model: Path) -> Path:
    """A run of a task with two task tokens, as far as its attention is concerned."""
    from models.checkpoint import read_config
    from models.tokenizer import save_tokenizer
    from storage import write_json
    from training.writing.run import save_language_model
    from training.writing.task_tokens import find_task_tokens, load_grown

    found = find_task_tokens(still_model, read_config(still_model), ("<sep>", "<nli>"))
    save_language_model(load_grown(still_model, found), found.tokenizer, tmp_path / "run" / "best", found.recorded)
    save_tokenizer(found.tokenizer, tmp_path / "run" / "best")
    write_json(tmp_path / "run" / "config.json", {"task": "inference", "settings": {}, "task_tokens": found.ids})
    write_json(tmp_path / "run" / "metrics.json", {"task": "inference"})
    return tmp_path / "run"


def test_task_tokens_are_read_as_such(task_run: Path) -> None:
    tokens, _ = read_attention(task_run, "a superb film <sep> a film <nli>")
    assert tokens.count("<sep>") == tokens.count("<nli>") == 1 and tokens[-1] == "<nli>"
    assert "".join(tokens[1:]) == "asuperbfilm<sep>afilm<nli>"  # after the token that every text begins with
    for text in ("a superb film | a film", "a film <nli> a film <sep>", "<sep> a film <nli>", "a <sep> b <nli> c"):
        with pytest.raises(UserError, match='task tokens; write "… <sep> … <nli>"'):
            read_attention(task_run, text)


def test_attention_is_drawn(script: Any, finished_run: Path, tmp_path: Path) -> None:
    done = script("compare")(finished_run, "--attention", "a superb <b>film", "--output-dir", tmp_path / "out")
    assert done.code == 0, done.err
    page = Page((tmp_path / "out" / "attention.html").read_text(encoding="utf-8"))
    assert len(page.all("svg")) == 2 and page.texts("p") == ["a superb <b>film"]
    assert len(list((tmp_path / "out").glob("attention-*.png"))) == 2
    assert "“" in str(page.all("svg")[0][1]["aria-label"])


def test_a_prefix_is_one_column() -> None:
    attentions = np.zeros((1, 2, 3, 5))
    attentions[..., :2] = 0.25
    attentions[..., 2] = 0.5
    picture = attention_picture(["a", "b", "c"], attentions)
    ((alt, figure),) = picture.panels
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["(prefix)", "a", "b", "c"]
    assert len(picture.svgs()) == 1 and "(prefix)" in alt


@pytest.mark.parametrize(
    ("text", "problem"), [("word " * 60, r"--attention: the text has \d+ tokens; give one with 1 to 48")]
)
def test_a_text_that_can_t_be_drawn(finished_run: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_attention(finished_run, text)


def test_attention_needs_a_finished_gpt2(finished_run: Path, tmp_path: Path) -> None:
    from storage import write_json

    write_json(finished_run / "metrics.json", {"task": "sentiment", "comparator": True})
    with pytest.raises(UserError, match="no GPT-2 of this project"):
        draw_attention_map(finished_run, "a film", tmp_path / "out")
    (finished_run / "metrics.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        draw_attention_map(finished_run, "a film", tmp_path / "out")
    assert not (tmp_path / "out").exists()
