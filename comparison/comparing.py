"""From run folders to comparisons, and from these to tables, a report and the text for the terminal."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from comparison.entries import (
    Aligned,
    Group,
    align,
    differences_of_data,
    group_runs,
    labels_of_data,
    missing_seeds,
    mixed_machines,
    mixed_precisions,
    mixed_references,
    mixed_vocabularies,
    with_like_tests,
)
from comparison.published import published_entries, published_notes
from comparison.runs import Comparison, Entry, Measure, Pair, Refused, Run, find_runs, scores_of_classes
from comparison.splits import ReadBack, read_back, with_most_rows
from comparison.statistics import holm, mcnemar_exact, mean_interval, paired_difference
from comparison.tables import comparison_record, csv_page, latex_page, markdown_page, terminal_page
from comparison.verdicts import level_of, variance_parts, verdict, would_change
from comparison.written_floors import floor_of, has_floor
from config import UserError
from storage import shown, write_json, write_text

SCHEMA = 1
FEW = 3  # folders at once


def compare_runs(
    folders: Sequence[Path],
    output_dir: Path | None,
    *,
    title: str,
    measure: str | None = None,
    baseline: str | None = None,
    floors: bool = True,
    report: bool = True,
    pictures: Path | None = None,
    form: str = "terminal",
    command: Sequence[str] = (),
) -> str:
    """Compares all complete runs among and below ``folders``.

    Args:
        output_dir: gets ``comparison.md, .csv, .tex, .json`` and ``report.html``; the same runs give the same bytes.
        measure: what to compare by, where runs have it; else the task's usual one.
        baseline: an entry whose pairs are shown, too.
        floors: measure what needs no GPT-2 (:mod:`comparison.floors`), where the data files are still there.
        report: write ``report.html``.
        pictures: gets the report's pictures as PNG files.
        form: of the returned text, one of ``FORMATS``.
        command: what the user typed, for the report.

    Raises:
        UserError: there is nothing to compare, or no run has the measure or the name of the baseline.
    """
    comparisons = make_comparisons(folders, measure=measure, baseline=baseline, floors=floors)
    for folder in (output_dir, pictures):
        if folder is not None:
            _make_folder(folder)
    if output_dir is not None:
        write_text(output_dir / "comparison.md", markdown_page(comparisons, title))
        write_text(output_dir / "comparison.csv", csv_page(comparisons))
        write_text(output_dir / "comparison.tex", latex_page(comparisons))
        record = [comparison_record(comparison) for comparison in comparisons]
        write_json(output_dir / "comparison.json", {"schema": SCHEMA, "title": title, "comparisons": record})
        if report:
            from comparison.report import write_report

            write_report(comparisons, output_dir / "report.html", title=title, commands=commands(comparisons, command))
    if pictures is not None:
        from comparison.pictures import write_pictures

        write_pictures(comparisons, pictures)
    if form == "markdown":
        return markdown_page(comparisons, title)
    pages = {"terminal": terminal_page, "csv": csv_page, "latex": latex_page}
    return pages[form](comparisons)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be made ({error.strerror}); choose another folder") from None


def commands(comparisons: Sequence[Comparison], command: Sequence[str]) -> list[str]:
    """The commands that made the runs, as a user types them, and the one that compared them."""
    runs = [run for comparison in comparisons for entry in comparison.entries for run in entry.runs]
    typed = [shlex.join(["python", Path(run.command[0]).name, *run.command[1:]]) for run in runs if run.command]
    return [*dict.fromkeys(typed), *([shlex.join(command)] if command else [])]


# ---------------------------------------------------------------------------------------------------------------------
# From folders to comparisons
# ---------------------------------------------------------------------------------------------------------------------


def make_comparisons(
    folders: Sequence[Path], *, measure: str | None = None, baseline: str | None = None, floors: bool = True
) -> list[Comparison]:
    """One comparison for each task and dev set among the runs.

    Raises:
        UserError: as :func:`compare_runs`.
    """
    runs, refused = find_runs(folders)
    groups = group_runs(runs)
    aligned = {key: align(group, measure) for key, group in groups.items()}
    usable = {key: group for key, group in groups.items() if aligned[key].entries}
    refused += [problem for found in aligned.values() for problem in found.refused]
    if not usable:
        raise UserError([str(problem) for problem in refused] or ["there is no run to compare"])
    if measure and all(aligned[key].measure.name != measure for key in usable):
        choices = list(dict.fromkeys(name for key in usable for name in aligned[key].choices))
        raise UserError(f"--measure {measure}: no run has it for single examples; choose among {', '.join(choices)}")
    comparisons = []
    for (key, group), data in zip(usable.items(), labels_of_data(list(usable)), strict=True):
        own = [problem for problem in refused if _belongs(problem, group, list(usable.values()))]
        problems = [*map(str, own), *_compared_apart(key, usable)]
        made = make_comparison(group, aligned[key], problems, floors=floors, baseline=baseline)
        comparisons.append(dataclasses.replace(made, data=data))
    names = [entry.name for comparison in comparisons for entry in comparison.measured]
    if baseline and baseline not in names:
        raise UserError(f"--baseline {baseline}: no such entry; choose among {', '.join(dict.fromkeys(names))}")
    return comparisons


def _belongs(problem: Refused, group: Group, groups: Sequence[Group]) -> bool:
    """Whether this comparison tells of a run that is not compared: of its dataset, or, being first, of none's."""
    if (problem.task, problem.dataset) == (group.task, group.dataset):
        return True
    known = {(other.task, other.dataset) for other in groups}
    return group is groups[0] and (problem.task, problem.dataset) not in known


def _compared_apart(key: tuple[object, ...], groups: Mapping[tuple[object, ...], Group]) -> list[str]:
    """The runs of the same dataset that are in another comparison, and why."""
    sentences = []
    for other, group in groups.items():
        if other != key and other[:2] == key[:2]:
            why = " and ".join(differences_of_data(key, other))
            names = ", ".join(shown(run.folder) for run in group.runs[:FEW])
            more = f" and {len(group.runs) - FEW} more" if len(group.runs) > FEW else ""
            sentences.append(f"compared apart, for they have {why}: {names}{more}")
    return sentences


def make_comparison(
    group: Group, aligned: Aligned, problems: Sequence[str], *, floors: bool, baseline: str | None
) -> Comparison:
    """Entries, floors and published numbers, sorted; pairs, tested."""
    measure, ids, run = aligned.measure, aligned.ids, group.runs[0]
    by_rows: dict[str, list[tuple[int, float]]] = {}
    entries, of_tests = with_like_tests(aligned.entries)
    runs = [run for entry in entries for run in entry.runs]
    tested = next((run for entry in entries if entry.tested for run in entry.runs), None)
    back = read_back(runs, ids, aligned.labels, tested)
    notes = [*aligned.notes, *mixed_precisions(entries), *mixed_machines(entries)]
    notes += [*mixed_references(entries), *mixed_vocabularies(entries, measure), *of_tests]
    if floors and back.rows:
        entries += written_floor_entries(back, ids, with_most_rows(runs), measure)
    elif floors and back.splits and aligned.labels is not None:
        entries += floor_entries(back, ids, aligned.labels, measure)
        by_rows = floors_by_rows(group.runs, ids, aligned.labels, measure)
        if by_rows:
            notes.append(f"the table's floors are made from {len(back.splits['train'].examples):,} training rows")
    elif floors and (aligned.labels is not None or has_floor(run)):
        notes.append(f"floors left out: {back.problem or 'the files of this dataset are not read back'}")
    elif back.problem:
        notes.append(f"texts left out: {back.problem}")

    def place(entry: Entry) -> tuple[bool, float, str]:
        if math.isnan(entry.value):  # a published result in other measures
            return True, 0.0, entry.name
        return False, -entry.value if measure.higher_is_better else entry.value, entry.name

    entries = sorted((dataclasses.replace(entry, interval=interval_of(entry, measure)) for entry in entries), key=place)
    best = entries[0].name
    if not entries[0].runs and sum(not entry.runs for entry in entries) > 1:
        notes.append("two floors are not tested against each other: nothing shows that one is worse")
    pairs = make_pairs(entries, measure)
    pairs.sort(key=lambda pair: best not in (pair.a, pair.b))
    return Comparison(
        task=group.task,
        dataset=group.dataset,
        measure=measure,
        ids=ids,
        labels=aligned.labels,
        label_names=run.label_names,
        texts={id_: back.texts[id_] for id_ in ids if id_ in back.texts},
        entries=tuple(sorted([*entries, *published_entries(run, measure)], key=place)),
        pairs=tuple(pairs),
        problems=(*problems, *missing_seeds(aligned.entries)),
        notes=(*notes, *published_notes(run, measure)),
        baseline=baseline if baseline in {entry.name for entry in entries} else None,
        floors_by_rows=by_rows,
    )


def floors_by_rows(
    runs: Sequence[Run], ids: Sequence[str], labels: np.ndarray, measure: Measure
) -> dict[str, list[tuple[int, float]]]:
    """The floors' scores from as many training rows as runs have, where these differ: name -> (rows, score) ascending.

    Of runs that drew the same number of rows by several seeds, the first one's are taken.
    """
    first: dict[int, Run] = {}
    for run in runs:
        if run.training_rows is not None:
            first.setdefault(run.training_rows, run)
    found: dict[str, list[tuple[int, float]]] = {}
    for rows, run in sorted(first.items()) if len(first) > 1 else ():
        back = read_back([run], ids, labels)
        for entry in floor_entries(back, ids, labels, measure) if back.splits else ():
            found.setdefault(entry.name, []).append((rows, entry.value))
    return found


def floor_entries(back: ReadBack, ids: Sequence[str], labels: np.ndarray, measure: Measure) -> list[Entry]:
    """What a strategy must beat to be worth anything; with test scores, where labelled test rows were read back."""
    from comparison.floors import floor_scores

    train, dev = back.splits["train"], back.splits["dev"].examples
    test = back.splits["test"].examples if "test" in back.splits else []
    truth = [example.label for example in test if example.label is not None]
    asked = dataclasses.replace(back.splits["dev"], examples=[*dev, *test])
    entries = []
    for name, found in floor_scores(train, asked, 0).items():
        place = {id_: i for i, id_ in enumerate(found.ids[: len(dev)])}
        probabilities = found.probabilities[[place[id_] for id_ in ids]]
        scores = _score_classes(labels, probabilities, measure)
        tested: tuple[float, ...] = ()
        if truth and len(truth) == len(test):
            tested = (float(_score_classes(np.array(truth), found.probabilities[len(dev) :], measure).mean()),)
        entries.append(
            Entry(
                name=name,
                kind="floor",
                model="",
                strategy=name,
                runs=(),
                scores=scores[None],
                value=float(scores.mean()),
                probabilities=probabilities[None],
                predicted=probabilities.argmax(axis=1)[None],
                tested=tested,
                note=f"a floor, from {len(train.examples):,} training rows",
            )
        )
    return entries


def _score_classes(labels: np.ndarray, probabilities: np.ndarray, measure: Measure) -> np.ndarray:
    return scores_of_classes(labels, probabilities.argmax(axis=1), probabilities)[measure.name]


def written_floor_entries(back: ReadBack, ids: Sequence[str], run: Run, measure: Measure) -> list[Entry]:
    """The floor of a task in which the model writes; none for a measure that the floor's texts are not measured by."""
    floor = floor_of(run, back.rows["train"])
    if floor is None:
        return []

    def scores_of(rows: Sequence[Any]) -> list[float]:
        return floor.score(rows, floor.write(rows)).get(measure.name, []) if rows else []

    row_of = {row.id: row for row in back.rows["dev"]}
    scores, tested = scores_of([row_of[id_] for id_ in ids]), scores_of(back.rows.get("test", []))
    if not scores:
        return []
    return [
        Entry(
            name=floor.name,
            kind="floor",
            model="",
            strategy=floor.name,
            runs=(),
            scores=np.array(scores)[None],
            value=float(np.mean(scores)),
            tested=(float(np.mean(tested)),) if tested else (),
            note=floor.note,
        )
    ]


def interval_of(entry: Entry, measure: Measure) -> tuple[float, float] | None:
    """None where there are too few examples to say anything of others."""
    assert entry.scores is not None
    low, high = mean_interval(entry.scores, is_share=measure.is_share)
    return (low, high) if math.isfinite(low) else None


# ---------------------------------------------------------------------------------------------------------------------
# Pairs
# ---------------------------------------------------------------------------------------------------------------------


def make_pairs(entries: Sequence[Entry], measure: Measure) -> list[Pair]:
    """Every pair of entries but those of two floors, tested; Holm's correction is over all of them.

    Entries whose scores are all the same, as those of one model that writes in two ways, make one test, not several.
    """
    couples = [_better_first(*couple, measure) for couple in combinations(entries, 2)]
    couples = [(a, b) for a, b in couples if a.runs or b.runs]
    scores = [_with_equal_rows(a, b) for a, b in couples]
    differences = [paired_difference(*both) for both in scores]
    digests: dict[tuple[str, int], str] = {}  # of the scores: of a floor there are as many rows as the other has seeds

    def digest(entry: Entry, matrix: np.ndarray) -> str:
        key = (entry.name, len(matrix))
        if key not in digests:
            digests[key] = hashlib.sha256(matrix.tobytes()).hexdigest()
        return digests[key]

    tests = [
        tuple(sorted((digest(a, of_a), digest(b, of_b)))) for (a, b), (of_a, of_b) in zip(couples, scores, strict=True)
    ]
    p_values = {test: one.p_value for test, one in zip(tests, differences, strict=True) if test[0] != test[1]}
    by_test = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    adjusted = [by_test.get(test, 1.0) for test in tests]
    level = level_of(list(by_test.values()))
    pairs = []
    for (a, b), (of_a, of_b), difference, p_adjusted in zip(couples, scores, differences, adjusted, strict=True):
        detectable = paired_difference(of_a, of_b, alpha=level).detectable
        mcnemar = None
        if len(of_a) == len(of_b) == 1 and a.correct is not None and b.correct is not None:
            mcnemar = mcnemar_exact(of_a[0], of_b[0])
        parts = variance_parts(of_a, of_b)
        pairs.append(
            Pair(
                a=a.name,
                b=b.name,
                difference=difference,
                p_adjusted=p_adjusted,
                verdict=verdict(measure, a, b, difference, p_adjusted, detectable, mcnemar),
                would_change=would_change(measure, a, b, difference, p_adjusted, level, parts),
                detectable=detectable,
                mcnemar=mcnemar,
                seed_share=parts.seeds,
            )
        )
    return pairs


def _better_first(a: Entry, b: Entry, measure: Measure) -> tuple[Entry, Entry]:
    return (b, a) if measure.better(b.value, a.value) or (b.value == a.value and b.name < a.name) else (a, b)


def _with_equal_rows(a: Entry, b: Entry) -> tuple[np.ndarray, np.ndarray]:
    """The scores of both. A floor has no seeds: it is what it is for each of the other's, and adds no noise."""
    assert a.scores is not None and b.scores is not None
    n_seeds = max(len(a.runs), len(b.runs))
    of_a = a.scores if a.runs else np.repeat(a.scores, n_seeds, axis=0)
    return of_a, b.scores if b.runs else np.repeat(b.scores, n_seeds, axis=0)
