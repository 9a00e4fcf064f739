"""``report.html``: a comparison as one page that needs nothing else, for someone who has not seen the runs.

The verdict comes first, then table, differences, pictures and mistakes, and at the end what repeats it all.
Whatever comes from runs and data goes through :mod:`comparison.markup`, which escapes it; besides, the page forbids
itself every other source of scripts.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.drawing import Picture
from comparison.markup import Content, Html, element, join
from comparison.mistakes import Disagreement, Mistakes, Slice, compare_mistakes, contrasted, mistakes_text
from comparison.pictures import by_examples, contrasting, pictures_of
from comparison.runs import Comparison, Entry, Pair, Run
from comparison.tables import KINDS, duration, further_measures, memory
from comparison.tables import columns as table_columns
from comparison.verdicts import headline, is_out_of_range, leading_pairs, p_text
from comparison.verdicts import number as in_unit
from storage import write_text

HERE = Path(__file__).resolve().parent
NOTHING = Html('<span class="muted" title="not measured">–</span>')
MOST_POETS, FIRST_POEMS, MOST_EXAMPLES = 4, 2, 6
FEW = 5  # sentences or names at once
MISSING = re.compile(r"\b(nan|inf|None)\b")
HEADS = {"trained": "Trained parameters", "in all": "Time of a run", "memory": "Peak memory"}
TASKS = {"paraphrase": "Paraphrase detection", "sonnet": "Sonnets", "inference": "Natural language inference"}


def write_report(comparisons: Sequence[Comparison], path: Path, *, title: str, commands: Sequence[str]) -> None:
    """Writes the page, whole or not at all; the same comparisons give the same bytes.

    Args:
        commands: what makes this report again.
    """
    write_text(path, report_page(comparisons, title=title, commands=commands))


def report_page(comparisons: Sequence[Comparison], *, title: str, commands: Sequence[str]) -> str:
    """The page as text."""
    names = unique([heading(comparison) for comparison in comparisons])
    sections = [(f"task-{i}", name, found) for i, (name, found) in enumerate(zip(names, comparisons, strict=True), 1)]
    links = [("verdict", "Verdict"), *((anchor, name) for anchor, name, _ in sections)]
    links += [("reading", "How to read this"), ("repeating", "Repeat it")]
    return _page(
        title,
        element(
            "header",
            element("h1", title),
            element("p", extent(comparisons), class_="lead"),
            element(
                "nav",
                element("ul", [element("li", element("a", text, href=f"#{anchor}")) for anchor, text in links]),
                aria_label="Contents",
            ),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Verdict", id="verdict"),
                [verdict_card(comparison, anchor, name) for anchor, name, comparison in sections],
            ),
            [task_section(comparison, anchor, name) for anchor, name, comparison in sections],
            reading_section(comparisons),
            repeating_section(comparisons, commands),
        ),
        first="verdict",
    )


def picture_page(picture: Picture, title: str, about: str) -> str:
    """A page of one picture, with what it is of."""
    header = element("header", element("h1", title), element("p", about, class_="lead"))
    figure_ = element("section", element("h2", picture.title, id="picture"), figure(picture, "", level=None))
    return _page(title, header, element("main", figure_), first="picture")


def _page(title: str, *body: Html, first: str) -> str:
    """A whole document. It forbids itself whatever is not in it."""
    script, style = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    skip = element("a", "To the content", href=f"#{first}", class_="skip")
    page = element("html", head, element("body", skip, body, element("script", Html(script))), lang="en")
    return f"<!doctype html>\n{page}\n"


def extent(comparisons: Sequence[Comparison]) -> str:
    """What the page is about, in numbers."""
    runs = sum(len(entry.runs) for comparison in comparisons for entry in comparison.entries)
    strategies = {entry.strategy for comparison in comparisons for entry in comparison.entries if entry.runs}
    parts = [_count(runs, "finished run"), _count(len(strategies), "way", "ways") + " of fine-tuning"]
    parts.append(_count(len(comparisons), "dev set"))
    return ", ".join(parts) + ". Strategies in bold are not shown to be worse than the best."


def heading(comparison: Comparison) -> str:
    """What was compared, in words."""
    return f"{TASKS.get(comparison.task, _capital(re.sub('[-_]', ' ', comparison.task)))} on {comparison.measured_on}"


def unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where several are the same: runs on the same data that could not be compared."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Verdict
# ---------------------------------------------------------------------------------------------------------------------


def verdict_card(comparison: Comparison, anchor: str, name: str) -> Html:
    """Which strategy, by how much, how sure, at what cost, in a few sentences."""
    return element(
        "div",
        element("h3", element("a", name, href=f"#{anchor}")),
        element("p", headline(comparison), class_="answer"),
        element("p", " ".join(reasons(comparison))),
        [element("p", warning, class_="warning") for warning in warnings_of(comparison)],
        class_="verdict",
    )


def reasons(comparison: Comparison) -> list[str]:
    """How sure that is, and at what cost."""
    best = comparison.best
    second = comparison.runner_up(best)
    pair = comparison.pair(best.name, second.name) if second else None
    sentences = [_as_sentence(text) for text in ([pair.verdict, pair.would_change] if pair else []) if text]
    sentences += best_by_examples(comparison)
    known = {"total_seconds": lambda x: f"{duration(x)} a run", "peak_memory_bytes": lambda x: f"{memory(x)} of memory",
             "trainable_parameters": lambda x: f"{x:,.0f} trained parameters"}  # fmt: skip
    costs = {name: best.cost(name) for name in known}
    words = [known[name](cost) for name, cost in costs.items() if cost is not None and math.isfinite(cost)]
    return [*sentences, f"{best.name} costs {_listed(words)}."] if words else sentences


def best_by_examples(comparison: Comparison) -> list[str]:
    """Which strategy has the best score with so many training examples, where runs differ in that."""
    best: dict[int, Entry] = {}
    for line in by_examples(comparison).values():
        for rows, entry in line:
            if rows not in best or comparison.measure.better(entry.value, best[rows].value):
                best[rows] = entry
    words = [f"{rows:,} ({best[rows].strategy})" for rows in sorted(best)]
    return [f"The best score with so many training examples: {_listed(words)}."] if words else []


def warnings_of(comparison: Comparison) -> list[str]:
    """What a stranger must know before believing a verdict."""
    found = []
    best = comparison.best
    floors = [entry for entry in comparison.measured if entry.kind == "floor" and entry.name in comparison.not_worse]
    if best.runs and floors:
        names = _listed([f"“{entry.name}”" for entry in floors])
        found.append(
            f"{best.name} is not shown to be better than {names}: fine-tuning is not shown to be worth it here."
        )
    elif not best.runs:
        is_shown = not any(entry.runs for entry in comparison.measured if entry.name in comparison.not_worse)
        worth = "is not worth it" if is_shown else "is not shown to be worth it"
        found.append(f"“{best.name}” needs no GPT-2 and has the best score: fine-tuning {worth} here.")
    if comparison.dataset.endswith("-sample"):
        found.append(
            "These are the small bundled samples: they show that everything works, not which strategy is best."
        )
    single = [entry.name for entry in comparison.measured if len(entry.runs) == 1]
    if single:
        names = _listed(single) if len(single) <= FEW else f"{len(single)} entries"
        found.append(f"One seed only of {names}: how much another seed would change is not known.")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what it is sorted by; without a value it stays at the end."""

    content: Content
    value: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a sortable table: ``first`` is how a first click sorts, "high" or "low"; text sorts by letters."""

    title: str
    first: str = "high"
    is_text: bool = False


def sortable_table(
    label: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[str | None, Sequence[Cell]]],
    sorted_by: int | None = None,
) -> Html:
    """A table in a box of its own, so that it scrolls and not the page.

    Args:
        label: what the table is, for those who can't see it.
        rows: (class, cells); the first cell of each is its header.
        sorted_by: the column that it is sorted by, in the order of a first click.
    """
    heads = []
    for place, column in enumerate(columns):
        order = {"high": "descending", "low": "ascending"}["low" if column.is_text else column.first]
        heads.append(
            element(
                "th",
                element("button", column.title, type="button"),
                scope="col",
                class_="text" if column.is_text else None,
                data_numeric=None if column.is_text else column.first,
                aria_sort=order if place == sorted_by else None,
            )
        )
    body = []
    for kind, cells in rows:
        written = []
        for place, (column, cell) in enumerate(zip(columns, cells, strict=True)):
            value = cell.value if isinstance(cell.value, str) else "" if cell.value is None else f"{cell.value:.12g}"
            name, scope = ("th", "row") if place == 0 else ("td", None)
            look = "text" if column.is_text else "main" if place == sorted_by else None
            written.append(element(name, cell.content, scope=scope, class_=look, data_value=value))
        body.append(element("tr", written, class_=kind))
    table = element("table", element("thead", element("tr", heads)), element("tbody", body), class_="sortable")
    return element("div", table, class_="scroll", role="region", tabindex="0", aria_label=label)


def score_table(comparison: Comparison) -> Html:
    """A row per entry, with the texts of every other table; the kind is a tag behind the name."""
    entries = comparison.entries
    names, *found = [column for column in table_columns(comparison) if column.head not in ("kind", "training")]
    is_plain = {"seeds": _differ([len(entry.runs) for entry in entries if entry.runs]),
                "model": _differ([entry.model for entry in entries if entry.runs])}  # fmt: skip
    found = [column for column in found if is_plain.get(column.head, True)]
    lower = {"best epoch", *(one.label for one in further_measures(comparison) if not one.higher_is_better)}
    if not comparison.measure.higher_is_better:
        lower |= {comparison.measure.label, "95 % CI", "last epoch", "test"}
    heads = [Column("Strategy", is_text=True)]
    for column in found:
        is_low = column.head in lower or (column.is_cost and column.head != "examples/s")
        heads.append(
            Column(HEADS.get(column.head) or _capital(column.head), "low" if is_low else "high", column.head == "model")
        )
    rows = []
    for i, entry in enumerate(entries):
        cells = [Cell([names.values[i], _tag(entry, is_plain["model"])], entry.name)]
        for head, column in zip(heads[1:], found, strict=True):
            text = "" if not head.is_text and MISSING.search(column.values[i]) else column.values[i]
            content: Content = [text, _interval_bar(entry, comparison)] if column.head == "95 % CI" else text
            cells.append(Cell(content, text if head.is_text else leading_number(text)) if text else Cell(NOTHING))
        rows.append(("best" if entry.scores is not None and entry.name in comparison.not_worse else None, cells))
    by_score = next(i for i, head in enumerate(heads) if head.title == _capital(comparison.measure.label))
    return sortable_table(f"Scores and costs on {comparison.dataset}", heads, rows, sorted_by=by_score)


def _differ(values: Sequence[object]) -> bool:
    return len(set(values)) > 1


def _tag(entry: Entry, has_models: bool) -> Content:
    """What kind of entry it is, unless it is a run of GPT-2."""
    if entry.kind == "run":
        return None
    model = f", {entry.model}" if entry.model and not has_models and not entry.runs else ""
    return [" ", element("span", entry.kind + model, class_="tag", title=entry.note or KINDS[entry.kind])]


def leading_number(text: str) -> float | None:
    """The number that a text begins with, times of any unit in seconds; None if it begins with none."""
    match = re.match(r"([-+−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*(min|h)?\b", text)
    if match is None:
        return None
    unit = {"min": 60.0, "h": 3600.0}.get(match[2] or "", 1.0)
    return float(match[1].replace(",", "").replace("−", "-")) * unit


def _interval_bar(entry: Entry, comparison: Comparison) -> Html:
    """The interval as a line, all of a table on the same scale; what lies outside it ends at its ends."""
    ends = [end for other in comparison.measured if other.runs and other.interval for end in other.interval]
    if entry.interval is None or not ends or not all(map(math.isfinite, [*ends, *entry.interval, entry.value])):
        return Html("")
    low, width = min(ends), (max(ends) - min(ends)) or 1.0
    if entry.interval[1] < low or entry.interval[0] > max(ends):
        return Html("")
    left, right, middle = (
        f"{min(max(100 * (x - low) / width, 0.0), 100.0):.1f}" for x in (*entry.interval, entry.value)
    )
    return Html(
        f'<svg class="range" viewBox="-4 0 108 12" aria-hidden="true"><line x1="{left}" y1="6" x2="{right}" y2="6"/>'
        f'<circle cx="{middle}" cy="6" r="4"/></svg>'
    )


# ---------------------------------------------------------------------------------------------------------------------
# A task's section
# ---------------------------------------------------------------------------------------------------------------------


def task_section(comparison: Comparison, anchor: str, name: str) -> Html:
    """Everything about one task on one dev set."""
    pictures = {picture.name: picture for picture in pictures_of(comparison)}
    of_mistakes = pictures.pop("slices", None)
    seeds = {len(entry.runs) for entry in comparison.entries if entry.runs}
    over = f"{_count(seeds.pop(), 'seed')}" if len(seeds) == 1 else "seeds"
    about = f"{len(comparison.ids):,} dev examples. Mean ± standard deviation over {over}, of each run's best epoch."
    about += " A click on a header sorts."
    return element(
        "section",
        element("h2", name, id=anchor),
        element("h3", "Scores and costs"),
        element("p", about, class_="caption"),
        score_table(comparison),
        [element("p", note, class_="caption") for note in comparison.notes],
        differences_part(comparison, pictures.pop("differences", None), anchor),
        pictures_part(pictures, anchor),
        mistakes_part(comparison, of_mistakes, anchor),
        poems_part(comparison),
        problems_part(comparison),
    )


def differences_part(comparison: Comparison, picture: Picture | None, anchor: str) -> Html | None:
    """A sentence per pair with the best, and all pairs: as a table, and each with its sentence."""
    if not comparison.pairs:
        return None
    items = [_pair_item(pair) for pair in leading_pairs(comparison)]
    unit = "points" if comparison.measure.is_share else comparison.measure.label
    columns = [
        Column("Pair", is_text=True),
        Column(f"Difference ({unit})"),
        Column("95 % interval"),
        Column("p, corrected", "low"),
        Column("p", "low"),
        Column("Would have been seen", "low"),
    ]
    exact = any(pair.mcnemar is not None for pair in comparison.pairs)
    if exact:
        columns.append(Column("McNemar p", "low"))
    rows = [("best" if pair.is_shown else None, _pair_cells(pair, comparison, exact)) for pair in comparison.pairs]
    return join(
        [
            element("h3", "Are the differences real?"),
            element(
                "div",
                figure(picture, anchor) if picture else None,
                element(
                    "div",
                    element("ul", items[:FEW]),
                    element("details", element("summary", f"{len(items) - FEW} more"), element("ul", items[FEW:]))
                    if len(items) > FEW
                    else None,
                ),
                class_="sides",
            ),
            element(
                "details",
                element("summary", f"All {_count(len(comparison.pairs), 'pair')}, with p-values"),
                sortable_table(f"All pairs on {comparison.dataset}", columns, rows),
                element("ul", [_pair_item(pair) for pair in comparison.pairs])
                if len(comparison.pairs) > len(items)
                else None,
            ),
        ]
    )


def _pair_item(pair: Pair) -> Html:
    """What a pair's test says, and what would change it."""
    return element(
        "li",
        element("b", _as_sentence(pair.verdict)) if pair.is_shown else _as_sentence(pair.verdict),
        [" ", element("span", pair.would_change, class_="muted")] if pair.would_change else None,
    )


def _pair_cells(pair: Pair, comparison: Comparison, exact: bool) -> list[Cell]:
    d = pair.difference
    detectable = math.nan if is_out_of_range(comparison.measure, pair.detectable) else pair.detectable
    cells = [
        Cell(f"{pair.a} – {pair.b}", f"{pair.a} {pair.b}"),
        Cell(_signed(d.mean, comparison), _finite(d.mean)),
        Cell(
            NOTHING if d.low == d.high else f"{_signed(d.low, comparison)} to {_signed(d.high, comparison)}",
            _finite(d.low),
        ),
        Cell(_p(pair.p_adjusted), _finite(pair.p_adjusted)),
        Cell(_p(d.p_value), _finite(d.p_value)),
        Cell(_signed(detectable, comparison).lstrip("+"), _finite(detectable)),
    ]
    if exact:
        cells.append(Cell(NOTHING) if pair.mcnemar is None else Cell(_p(pair.mcnemar), pair.mcnemar))
    return cells


def pictures_part(pictures: Mapping[str, Picture], anchor: str) -> Html | None:
    """Every picture with what to look at."""
    if not pictures:
        return None
    figures = [figure(picture, anchor) for picture in pictures.values()]
    return join([element("h3", "Pictures"), element("div", figures, class_="pictures")])


def figure(picture: Picture, anchor: str, level: str | None = "h4") -> Html:
    """A picture with its caption; several panels stand side by side where there is room.

    Args:
        anchor: of the section that it stands in.
        level: of its title; None for a title that stands elsewhere.
    """
    return element(
        "figure",
        element(level, picture.title) if level else None,
        element("figcaption", picture.caption, class_="caption"),
        element("div", [Html(svg) for svg in picture.svgs(f"{anchor}-")], class_="panels"),
        class_="broad" if len(picture.panels) > 1 else None,
    )


def mistakes_part(comparison: Comparison, picture: Picture | None, anchor: str) -> Html | None:
    """What the best gets right and the runner-up wrong, and the other way; both by class, length and confidence."""
    pair = contrasted(comparison)
    found = compare_mistakes(comparison, *pair, count=MOST_EXAMPLES) if pair else None
    if found is None:
        return None
    tables = [_slices_table(name, parts, found) for name, parts in found.slices.items() if len(parts) > 1]
    sides = [
        (f"Right with {found.a}, wrong with {found.b}", found.n_only_a, found.only_a),
        (f"Right with {found.b}, wrong with {found.a}", found.n_only_b, found.only_b),
    ]
    return join(
        [
            element("h3", "Mistakes"),
            element(
                "div",
                figure(picture, anchor) if picture else None,
                element("ul", [element("li", _as_sentence(_capital(line))) for line in mistakes_text(comparison)]),
                class_="sides",
            ),
            element("details", element("summary", "The same as tables"), tables) if tables else None,
            element("div", [_examples(title, n, shown, found) for title, n, shown in sides], class_="sides"),
        ]
    )


def _slices_table(name: str, parts: Sequence[Slice], found: Mistakes) -> Html:
    columns = [
        Column(f"By {name}", is_text=True),
        Column("Examples"),
        Column(f"{found.a} right"),
        Column(f"{found.b} right"),
        Column(f"Only {found.a}"),
        Column(f"Only {found.b}"),
    ]
    rows = []
    for number_, part in enumerate(parts):
        shares = [part.a_right / part.n, part.b_right / part.n]
        cells = [Cell(part.label, f"{number_:03d}"), Cell(f"{part.n:,}", part.n)]
        cells += [Cell(f"{share:.0%}", share) for share in shares]
        cells += [Cell(f"{count:,}", count) for count in (part.only_a, part.only_b)]
        rows.append((None, cells))
    return sortable_table(f"{found.a} and {found.b} by {name}", columns, rows)


def _examples(title: str, n: int, shown: Sequence[Disagreement], found: Mistakes) -> Html:
    items = [
        element(
            "li",
            element("blockquote", example.text or f"(example {example.id})"),
            element("p", _said(example, found), class_="caption"),
        )
        for example in shown
    ]
    of = f"{len(shown)} of {n:,}, the furthest apart first" if n > len(shown) else f"{n:,}"
    return element("div", element("h4", f"{title} ({of})"), element("ol", items, class_="examples") if items else None)


def _said(example: Disagreement, found: Mistakes) -> str:
    """What is true, and what both say."""
    if example.a_probability is None or example.b_probability is None:
        if not example.label:
            return "What they wrote is gone."
        a, b = (f"“{text}”" if text else "nothing" for text in (example.a_says, example.b_says))
        return f"Right is “{example.label}”. {found.a} writes {a}; {found.b} writes {b}."
    return (
        f"In truth {example.label}. {found.a} says {example.a_says} and gives the truth {example.a_probability:.0%}; "
        f"{found.b} says {example.b_says}, {example.b_probability:.0%}."
    )


def problems_part(comparison: Comparison) -> Html | None:
    """What was left out, and why."""
    if not comparison.problems:
        return None
    items = [element("li", problem) for problem in comparison.problems]
    return join([element("h3", "Not compared, or with care"), element("ul", items)])


# ---------------------------------------------------------------------------------------------------------------------
# Poems
# ---------------------------------------------------------------------------------------------------------------------


def poems_part(comparison: Comparison) -> Html | None:
    """The poems that best, baseline, worst and others made of the same beginnings, beside one another."""
    from poetry.sonnets import Sonnet, read_poems

    chosen = [entry for _, entry in contrasting(comparison)]
    chosen += [entry for entry in comparison.measured if entry.runs and entry not in chosen]
    books: dict[str, dict[int, Sonnet]] = {}
    for entry in chosen:
        file = entry.runs[0].folder / "predictions" / "generated_sonnets_dev.txt"
        if file.is_file() and len(books) < MOST_POETS:
            poems = read_poems(file)
            books[f"{entry.name}, seed {entry.runs[0].seed}"] = {poem.number: poem for poem in poems}
    if not books:
        return None
    numbers = [n for n in next(iter(books.values())) if all(n in poems for poems in books.values())]
    rows = [_poem_row(number, {name: poems[number] for name, poems in books.items()}) for number in numbers]
    more = element("details", element("summary", f"{len(rows) - FIRST_POEMS} more"), rows[FIRST_POEMS:])
    return join(
        [
            element("h3", "Poems side by side"),
            element(
                "p",
                "The first three lines, in italics, were given. Beside each line its rhyme letter; a small letter is a "
                "near rhyme. Shakespeare's scheme is ABAB CDCD EFEF GG.",
                class_="caption",
            ),
            rows[:FIRST_POEMS],
            more if len(rows) > FIRST_POEMS else None,
        ]
    )


def _poem_row(number: int, poems: dict[str, Any]) -> Html:
    from poetry.rhyme import rhyme_letters
    from poetry.sonnets import N_GIVEN

    columns = []
    for name, poem in poems.items():
        lines = [
            element(
                "li",
                element("span", letter.strip() or " ", class_="letter"),
                element("span", line, class_="given" if i < N_GIVEN else None),
            )
            for i, (letter, line) in enumerate(zip(rhyme_letters(poem.lines), poem.lines, strict=True))
        ]
        columns.append(element("div", element("h4", name), element("ol", lines), class_="poem"))
    box = element("div", columns, class_="poems")
    return element("div", box, class_="scroll", role="region", tabindex="0", aria_label=f"Sonnet {number}")


# ---------------------------------------------------------------------------------------------------------------------
# How it was made
# ---------------------------------------------------------------------------------------------------------------------


def reading_section(comparisons: Sequence[Comparison]) -> Html:
    """What the words and signs of this page mean."""
    methods = sorted({pair.difference.method for comparison in comparisons for pair in comparison.pairs})
    facts = [
        ("Bold rows", "the best score, and every one that is not shown to be worse than it."),
        ("Shown", "the p-value, corrected by Holm's method for all pairs of a table, is below 0.05."),
        (
            "Not shown",
            "is not “equal”: the interval says how much they may differ. A true difference of the size that "
            "“would have been seen” is shown in four of five such experiments.",
        ),
        ("95 % interval", "where the value may well lie, given that other examples and other seeds might have come."),
        ("Points", "hundredths: from 0.40 to 0.42 are two points."),
        ("Test of a pair", "; ".join(methods) + "." if methods else "none was made."),
        ("Dev scores", "the dev set also chose the best epoch, for every strategy alike: they are a little too high."),
        (
            "Floors",
            "what needs no GPT-2: always the most frequent class; word counts with logistic regression; the first "
            "sentences of a document for its summary; for an answer the words of the text that stand nearest to the "
            "question's, or the answer to the training question that is most like it.",
        ),
        ("Published", "numbers from the literature on the same data, with other models; in no test."),
    ]
    rows = [[element("dt", word), element("dd", text)] for word, text in facts]
    return element(
        "section", element("h2", "How to read this", id="reading"), element("dl", rows, class_="facts")
    )  # fmt: skip


def repeating_section(comparisons: Sequence[Comparison], commands: Sequence[str]) -> Html:
    """The commands, versions and machines behind every number."""
    parts: list[Content] = [element("h2", "Repeat it", id="repeating")]
    if commands:
        parts.append(element("p", "These commands make the runs, and this page:", class_="caption"))
        parts.append(element("pre", "\n".join(commands), tabindex="0", aria_label="Commands"))
    parts.append(element("h3", "Versions and machines"))
    for names, facts in environments(comparisons):
        parts.append(element("p", names, class_="caption"))
        parts.append(
            element("dl", [[element("dt", word), element("dd", text)] for word, text in facts], class_="facts")
        )
    return element("section", parts)


def environments(comparisons: Sequence[Comparison]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(which runs, facts) of every different environment that runs were made in."""
    grouped: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for comparison in comparisons:
        for entry in comparison.entries:
            for run in entry.runs:
                grouped.setdefault(tuple(_environment(run)), []).append(run)
    found = []
    for facts, runs in grouped.items():
        every = len(grouped) == 1
        names = "All runs" if every else _listed([run.folder.name for run in runs[:3]])
        more = "" if every or len(runs) <= 3 else f" and {len(runs) - 3} more"
        found.append((f"{names}{more}:", list(facts)))
    return found


def _environment(run: Run) -> list[tuple[str, str]]:
    told = run.config.get("environment", {})
    model = run.config.get("model", {})
    packages = ", ".join(f"{name} {version}" for name, version in sorted((told.get("packages") or {}).items()))
    commit = told.get("git_commit")
    changed = " with uncommitted changes" if told.get("git_dirty") else ""
    facts = {
        "Model": model.get("used"),
        "Python": told.get("python"),
        "Packages": packages,
        "Commit": f"{commit}{changed}" if commit else None,
        "Device": told.get("device"),
        "Threads": told.get("threads"),
        "System": told.get("platform"),
    }
    return [(word, str(value)) for word, value in facts.items() if value not in (None, "")]


# ---------------------------------------------------------------------------------------------------------------------
# Words and numbers
# ---------------------------------------------------------------------------------------------------------------------


def _signed(value: float, comparison: Comparison) -> str:
    if not math.isfinite(value):
        return "–"
    text = in_unit(comparison.measure, value)
    return text.replace("-", "−") if text.startswith("-") or value <= 0 else f"+{text}"


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return p_text(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _as_sentence(text: str) -> str:
    return text if not text or text[-1] in ".!?" else text + "."


def _listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
