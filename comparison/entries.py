"""From runs to entries: which runs are seeds of one another, what an entry is called, and its scores, aligned by id."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comparison.runs import Entry, Examples, Measure, Refused, Run, machines_of, read_examples
from config import UserError
from storage import shown

MEASURES = {
    measure.name: measure
    for measure in (
        # The first one that all runs have is compared, unless the user names another.
        Measure("accuracy", "accuracy"),
        Measure("f1", "F1"),
        Measure("exact_match", "exact match"),
        Measure("rouge_l", "ROUGE-L", is_share=False),
        Measure("chrf", "chrF of each text", is_share=False, is_mean=False),
        Measure("log_likelihood", "log-likelihood", is_share=False),
        Measure("rhyme_accuracy", "rhyme"),
        Measure("loss", "loss", higher_is_better=False, is_share=False),
        # Only by name:
        Measure("rouge_1", "ROUGE-1", is_share=False),
        Measure("rouge_2", "ROUGE-2", is_share=False),
        Measure("ten_syllable_lines", "ten syllables"),
        Measure("iambic_lines", "iambic"),
        Measure("lines_14", "fourteen lines"),
        Measure("guessed_endings", "guessed endings", higher_is_better=False),
        Measure("seq_rep_4", "repeated 4-grams", higher_is_better=False),
        Measure("repetition", "repeated 4-grams of words", higher_is_better=False),
    )
}
"""What can be compared: measures of single examples with a direction, the usual ones first."""

ONE_OF_MANY = {"seed", "dataset", "strategy", "model"}  # what an entry is, or what its runs differ in
# What a comparison is. Language and text field are of tasks with task tokens: they say how own files are measured, and
# what of them is read.
OF_THE_DATA = {"train file", "dev file", "truth file", "limit_dev", "hold_out", "language", "text_field"}
OF_THE_TEST = {"test file", "limit_test"}  # can't change what is measured on dev
REFERRED = "generated_perplexity"  # under a reference model: scores under two of them have nothing in common
PER_TOKEN = {"log_likelihood", "perplexity"}  # means over tokens: of another vocabulary they are other means
MEANS_MORE_THAN_UNSET = {"ul_line_breaks"}  # where False is a choice


@dataclass(frozen=True)
class Group:
    """The runs that can be compared: the same task, dataset, files and dev examples."""

    task: str
    dataset: str
    runs: list[Run]


def group_runs(runs: Sequence[Run]) -> dict[tuple[Any, ...], Group]:
    """Runs by what they were trained and measured on, in the order of their names."""
    groups: dict[tuple[Any, ...], Group] = {}
    for run in sorted(runs, key=lambda run: (run.task, run.dataset, str(run.folder))):
        groups.setdefault(data_key(run), Group(run.task, run.dataset, [])).runs.append(run)
    return groups


def data_key(run: Run) -> tuple[Any, ...]:
    """Task, dataset, and what the runs of a comparison must share: files, and which rows of them are the dev set."""
    return (run.task, run.dataset, *(_of_the_data(run, name) for name in sorted(OF_THE_DATA)))


def _of_the_data(run: Run, name: str) -> Any:
    if not name.endswith(" file"):
        return run.settings.get(name, run.identity.get(name))
    hashes = tuple(file.get("sha256") for file in run.files_of(name.removesuffix(" file")))
    return hashes or run.identity.get(name)


def differences_of_data(key: tuple[Any, ...], other: tuple[Any, ...]) -> list[str]:
    """In words, how the data of two groups differ."""
    words = {
        "train file": "another training file", "dev file": "another dev file",
        "truth file": "other true endings", "limit_dev": "another --limit-dev", "hold_out": "another --hold-out",
        "language": "another --language", "text_field": "another --text-field",
    }  # fmt: skip
    names = sorted(OF_THE_DATA)
    return [words[name] for name, a, b in zip(names, key[2:], other[2:], strict=True) if a != b]


def labels_of_data(keys: Sequence[tuple[Any, ...]]) -> list[str]:
    """In a few words, what tells the data of each group from those of the others of its task and dataset."""
    labels = []
    for key in keys:
        alike = [other for other in keys if other[:2] == key[:2]]
        words = []
        for place, name in enumerate(sorted(OF_THE_DATA), start=2):
            values = [other[place] for other in alike]
            if any(value != values[0] for value in values):
                words.append(_label_of(name.replace("_", "-"), key[place], values))
        labels.append(", ".join(words))
    return labels


def _label_of(name: str, value: Any, values: Sequence[Any]) -> str:
    if not value:
        return f"no {name}"
    if not name.endswith(" file"):
        return f"{name} {value}"
    checksums = [other if isinstance(other, tuple) else (other,) for other in (value, *values)]
    own = [one for one in checksums[0] if not all(one in other for other in checksums)]  # what all have tells nothing
    return f"{name} {' '.join(str(one)[:6] for one in own or checksums[0])}"


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def deciding(run: Run) -> dict[str, Any]:
    """The settings that tell an entry from others, those that are not in use left out."""
    left_out = ONE_OF_MANY | OF_THE_DATA | OF_THE_TEST
    return {
        name: value
        for name, value in run.identity.items()
        if re.sub(r"-\d+ file$", " file", name) not in left_out and not _is_unset(name, value)
    }


def _is_unset(name: str, value: Any) -> bool:
    """Whether a setting is not in use. A number is, 0 too: unset may stand for another one."""
    if value is None or value == []:
        return True
    return value is False and name not in MEANS_MORE_THAN_UNSET


def entry_key(run: Run) -> str:
    return json.dumps([run.model, run.strategy, run.is_comparator, deciding(run)], sort_keys=True)


def name_entries(firsts: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """A unique name for each entry, and the settings in it.

    Args:
        firsts: one run of each entry. Two of the same model and strategy differ in a setting, which their names tell;
            the model is named where there are several.
    """
    models = {run.model for run in firsts if not run.is_comparator}
    kinds = [(run.is_comparator, run.model, run.strategy) for run in firsts]
    names: list[tuple[str, dict[str, Any]]] = []
    for run, kind in zip(firsts, kinds, strict=True):
        like = [deciding(other) for other, its in zip(firsts, kinds, strict=True) if its == kind]
        own = deciding(run)
        every = dict.fromkeys(name for settings in like for name in settings)
        telling = [name for name in every if any(settings.get(name) != own.get(name) for settings in like)]
        shown_settings = {name.replace("_", "-"): own[name] for name in sorted(telling) if name in own}
        name = f"{run.model} {run.strategy}" if run.is_comparator or len(models) > 1 else run.strategy
        if shown_settings:
            name += f" ({', '.join(_setting_text(key, value) for key, value in shown_settings.items())})"
        names.append((name, shown_settings))
    count = Counter(name for name, _ in names)
    return [
        (
            name
            if count[name] == 1
            else f"{name} [{', '.join(f'{key} {value!r}' for key, value in settings.items())}]",
            settings,
        )
        for name, settings in names
    ]  # numbers may look the same


def _setting_text(name: str, value: Any) -> str:
    if value is True:
        return name
    if name == "model weights":  # checksums
        return f"weights {value[0][:6]}" if isinstance(value, list) else f"weights {str(value)[:6]}"
    if isinstance(value, list):
        return f"{name} {' '.join(map(str, value))}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aligned:
    """The entries of a group, their scores in the order of ``ids``, and what could not be used.

    ``choices`` are the measures that could be compared instead.
    """

    measure: Measure
    ids: list[str]
    labels: np.ndarray | None
    entries: list[Entry]
    refused: list[Refused]
    notes: list[str]
    choices: list[str]


def align(group: Group, measure_name: str | None) -> Aligned:
    """Reads the scores of all runs of a group. There are no entries where no run can be used; ``refused`` says why.

    Args:
        measure_name: the measure to compare, where the group has it.

    Raises:
        UserError: that measure has no better direction.
    """
    read: list[tuple[Run, Examples]] = []
    refused: list[Refused] = []
    for run in group.runs:
        try:
            read.append((run, read_examples(run)))
        except ValueError as error:
            refused.append(_refuse(run, str(error)))
    saved = Counter(name for _, examples in read for name in examples.values)
    measure = choose_measure(saved, measure_name)
    choices = [name for name in MEASURES if name in saved]
    read = _keep(read, refused, lambda run, e: _lacks_measure(run, e, measure))
    if measure.name in PER_TOKEN:
        vocabularies = vocabularies_of([run for run, _ in read])
        read = _keep(read, refused, lambda run, _: _other_vocabulary(run, vocabularies, measure))
    if not read:
        return Aligned(measure, [], None, [], refused, [], choices)
    ids = _common_ids([examples for _, examples in read])
    read = _keep(read, refused, lambda run, e: _other_ids(e, ids))
    labels = _labels(read[0][1], ids)
    read = _keep(read, refused, lambda run, e: _other_labels(e, ids, labels))
    read = _without_repeats(read, refused)
    notes = []
    if measure_name not in (None, measure.name):
        notes.append(f"its runs have no {measure_name} of single examples; compared by {measure.label}")
    said = np.all([~np.isnan(_in_order(e, ids, e.values[measure.name])) for _, e in read], axis=0)
    if not said.all():
        left_out = f"{(~said).sum()} of {len(ids)} dev examples are left out"
        notes.append(f"{left_out}: {measure.label} says nothing of them in some run")
        ids = [id_ for id_, is_said in zip(ids, said, strict=True) if is_said]
        labels = None if labels is None else labels[said]
    entries = _make_entries(read, ids, measure) if ids else []
    return Aligned(measure, ids, labels, entries, refused, notes, choices)


def _refuse(run: Run, why: str) -> Refused:
    return Refused(run.folder, run.task, run.dataset, why)


def _keep(
    read: list[tuple[Run, Examples]], refused: list[Refused], problem: Callable[[Run, Examples], str]
) -> list[tuple[Run, Examples]]:
    kept = []
    for run, examples in read:
        why = problem(run, examples)
        if why:
            refused.append(_refuse(run, why))
        else:
            kept.append((run, examples))
    return kept


def choose_measure(saved: Mapping[str, int], name: str | None) -> Measure:
    """The measure asked for if a run has it; else the one that most runs have, of those the first.

    Args:
        saved: measure -> number of runs that have it for single examples.

    Raises:
        UserError: the one asked for has no better direction.
    """
    known = [measure for measure in MEASURES.values() if measure.name in saved]
    if name in saved and name not in MEASURES:
        choices = ", ".join(measure.name for measure in known)
        raise UserError(f"--measure {name}: has no better direction, so nothing wins by it; choose among {choices}")
    if name in saved:
        return MEASURES[str(name)]
    return max(known, key=lambda measure: saved[measure.name], default=MEASURES["accuracy"])


def _lacks_measure(run: Run, examples: Examples, measure: Measure) -> str:
    """Also whether the examples belong to ``metrics.json``: files of two runs may have been mixed."""
    if not examples.values.keys() & MEASURES.keys():
        return f"has none of the measures that can be compared: {', '.join(MEASURES)}"
    if measure.name not in examples.values:
        return f"has no {measure.label} of single examples; run its command again with --overwrite"
    values, said = examples.values[measure.name], run.dev.get(measure.name) if measure.is_mean else None
    if np.isinf(values).any():
        return f"predictions/dev-scores.jsonl has an infinite {measure.label}; run its command again with --overwrite"
    if said is not None and not np.isnan(values).any() and abs(float(values.mean()) - float(said)) > 1e-6:
        return (
            f"predictions/dev-scores.jsonl gives {measure.label} {values.mean():.4f}, metrics.json {said:.4f}: they "
            "are not of the same run; run its command again with --overwrite"
        )
    return ""


def vocabularies_of(runs: Sequence[Run]) -> dict[Path, str]:
    """Run folder -> checksum of its model's vocabulary, which runs that began with the same model share; empty where
    none of these tells it any more."""
    known: dict[str, str] = {}
    for run in runs:
        known[_begun_with(run)] = known.get(_begun_with(run)) or run.vocabulary
    return {run.folder: known[_begun_with(run)] for run in runs}


def _begun_with(run: Run) -> str:
    return json.dumps([run.identity.get("model", run.model), run.identity.get("model weights")])


def _other_vocabulary(run: Run, vocabularies: Mapping[Path, str], measure: Measure) -> str:
    """Where it is not known, nothing speaks against it."""
    counts = Counter(vocabulary for vocabulary in vocabularies.values() if vocabulary)
    own = vocabularies[run.folder]
    if not own or own == counts.most_common(1)[0][0]:
        return ""
    return (
        f"its model has another vocabulary than most runs', so its {measure.label} is a mean over other tokens; "
        "compare it apart, or by another --measure"
    )


def _common_ids(read: Sequence[Examples]) -> list[str]:
    """The ids that most runs have, sorted."""
    counts: Counter[tuple[str, ...]] = Counter(tuple(sorted(examples.ids)) for examples in read)
    return list(counts.most_common(1)[0][0])


def _other_ids(examples: Examples, ids: Sequence[str]) -> str:
    other = set(examples.ids) ^ set(ids)
    if not other:
        return ""
    return f"its dev examples are others ({len(other)} ids differ, such as {min(other)}); compare it apart"


def _labels(examples: Examples, ids: Sequence[str]) -> np.ndarray | None:
    return None if examples.labels is None else _in_order(examples, ids, examples.labels)


def _other_labels(examples: Examples, ids: Sequence[str], labels: np.ndarray | None) -> str:
    own = _labels(examples, ids)
    if (own is None) == (labels is None) and (own is None or bool((own == labels).all())):
        return ""
    return "its dev examples have other labels; compare it apart"


def _without_repeats(read: list[tuple[Run, Examples]], refused: list[Refused]) -> list[tuple[Run, Examples]]:
    """The same run may lie in two folders: the first one counts."""
    first: dict[tuple[str, int], Run] = {}
    kept = []
    for run, examples in read:
        earlier = first.setdefault((entry_key(run), run.seed), run)
        if earlier is run:
            kept.append((run, examples))
            continue
        same = "with the same scores" if run.dev == earlier.dev else f"with other scores ({_machines(earlier, run)})"
        refused.append(_refuse(run, f"is the same run as {shown(earlier.folder)}, {same}, and is left out"))
    return kept


def _machines(a: Run, b: Run) -> str:
    devices = [str(run.config.get("environment", {}).get("device", "another machine")) for run in (a, b)]
    return " and ".join(dict.fromkeys(devices))


def _in_order(examples: Examples, ids: Sequence[str], values: np.ndarray) -> np.ndarray:
    """``values`` of the examples in the order of ``ids``."""
    place = {id_: i for i, id_ in enumerate(examples.ids)}
    return values[[place[id_] for id_ in ids]]


def _make_entries(read: Sequence[tuple[Run, Examples]], ids: Sequence[str], measure: Measure) -> list[Entry]:
    members: dict[str, list[tuple[Run, Examples]]] = {}
    for run, examples in sorted(read, key=lambda one: one[0].seed):
        members.setdefault(entry_key(run), []).append((run, examples))
    groups = list(members.values())
    entries = []
    for (name, settings), group in zip(name_entries([group[0][0] for group in groups]), groups, strict=True):
        first = group[0][0]
        scores = np.stack([_in_order(e, ids, e.values[measure.name]) for _, e in group])
        classified = group[0][1].probabilities is not None
        exact = [_in_order(e, ids, e.values["exact_match"]) for _, e in group if "exact_match" in e.values]
        entries.append(
            Entry(
                name=name,
                kind="comparator" if first.is_comparator else "run",
                model=first.model,
                strategy=first.strategy,
                runs=tuple(run for run, _ in group),
                scores=scores,
                value=float(scores.mean()),
                probabilities=_stack(group, ids, "probabilities") if classified else None,
                predicted=_stack(group, ids, "predicted") if classified else None,
                exact=np.stack(exact) if len(exact) == len(group) else None,
                settings=settings,
                tested=scores_on_test([run for run, _ in group], measure),
            )
        )
    return entries


def _stack(group: Sequence[tuple[Run, Examples]], ids: Sequence[str], name: str) -> np.ndarray:
    return np.stack([_in_order(examples, ids, getattr(examples, name)) for _, examples in group])


def scores_on_test(runs: Sequence[Run], measure: Measure) -> tuple[float, ...]:
    """The measure of each run on its test rows; empty unless all have one."""
    found = [_test_score(run, measure) for run in runs]
    return tuple(score for score in found if score is not None) if None not in found else ()


def _test_score(run: Run, measure: Measure) -> float | None:
    if measure.is_mean:
        score = (run.metrics.get("test") or {}).get(measure.name)
        return None if score is None else float(score)
    try:
        values = read_examples(run, "test").values[measure.name]
    except (ValueError, KeyError):  # nothing was tested
        return None
    return statistics.fmean(values) if np.isfinite(values).all() else None


# ---------------------------------------------------------------------------------------------------------------------
# What is uneven
# ---------------------------------------------------------------------------------------------------------------------


def with_like_tests(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries, with test scores only where all their runs were tested on the rows that most runs were; a note."""
    keys = Counter(_test_rows(run) for entry in entries for run in entry.runs if entry.tested)
    if len(keys) < 2:
        return list(entries), []
    ((usual, _),) = keys.most_common(1)
    others = {entry.name for entry in entries if entry.tested and {_test_rows(run) for run in entry.runs} != {usual}}
    note = f"test scores left out, of other rows than most runs were tested on: {', '.join(sorted(others))}"
    kept = [dataclasses.replace(entry, tested=()) if entry.name in others else entry for entry in entries]
    return kept, [note]


def _test_rows(run: Run) -> tuple[object, ...]:
    return (*(file.get("sha256") for file in run.files_of("test")), run.settings.get("limit_test"))


def missing_seeds(entries: Sequence[Entry]) -> list[str]:
    """One sentence for each entry that lacks seeds which others have."""
    every = sorted({seed for entry in entries for seed in entry.seeds})
    sentences = []
    for entry in entries:
        lacking = [str(seed) for seed in every if seed not in entry.seeds]
        if entry.runs and lacking:
            which = f"seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
            sentences.append(f"{entry.name}: has {len(entry.seeds)} of {len(every)} seeds; {which} missing")
    return sentences


def mixed_machines(entries: Sequence[Entry]) -> list[str]:
    """Times that were taken on different machines."""
    found = sorted(machines_of(entries))
    if len(found) < 2:
        return []
    return [f"times and speeds are of different machines ({'; '.join(found)}), so they say little of the strategies"]


def reference_models(entries: Sequence[Entry]) -> dict[str, str]:
    """The models under which what the runs wrote was scored: checksums of their weights -> name."""
    found = {}
    for run in (run for entry in entries for run in entry.runs if REFERRED in run.dev):
        # Runs that don't say so took the model that they started from.
        usual = {"name": run.identity.get("model", run.model), "weights_sha256": run.identity.get("model weights", [])}
        model = run.metrics.get("reference_model") or usual
        found[" ".join(model.get("weights_sha256") or [])] = str(model.get("name"))
    return found


def mixed_references(entries: Sequence[Entry]) -> list[str]:
    """Perplexities of what was written that can't stand in one column."""
    found = reference_models(entries)
    if len(found) < 2:
        return []
    models = ", ".join(f"{name} ({weights[:6]})" for weights, name in found.items())
    return [f"perplexity of poems left out: it is measured under different reference models: {models}"]


def has_mixed_vocabularies(entries: Sequence[Entry]) -> bool:
    """Whether perplexities per token can't stand in one column."""
    return len(set(_of_perplexities(entries).values()) - {""}) > 1


def mixed_vocabularies(entries: Sequence[Entry], measure: Measure) -> list[str]:
    """Scores per token that can't stand in one column, or of which nobody knows whether they can."""
    found = _of_perplexities(entries)
    if has_mixed_vocabularies(entries):
        return ["perplexity left out: it is a mean over tokens, and the models have different vocabularies"]
    runs = [run for entry in entries for run in entry.runs if run.folder in found]
    unknown = sorted({run.model for run in runs if not found[run.folder]})
    if unknown and len({_begun_with(run) for run in runs}) > 1:
        what = measure.label if measure.name in PER_TOKEN else "perplexity"
        return [f"{what} is a mean over tokens, and the vocabulary is not known of: {', '.join(unknown)}"]
    return []


def _of_perplexities(entries: Sequence[Entry]) -> dict[Path, str]:
    return vocabularies_of([run for entry in entries for run in entry.runs if "perplexity" in run.dev])


def mixed_precisions(entries: Sequence[Entry]) -> list[str]:
    """Precision ``auto`` means something else on another machine."""
    found: Mapping[str, list[str]] = {
        entry.name: sorted({str(run.metrics.get("precision", "unknown")) for run in entry.runs}) for entry in entries
    }
    sentences = [
        f"{name}: its runs were computed in different precisions ({', '.join(used)})"
        for name, used in found.items()
        if len(used) > 1
    ]
    every = sorted({precision for used in found.values() for precision in used})
    if not sentences and len(every) > 1:
        sentences.append(f"the entries were computed in different precisions ({', '.join(every)})")
    return sentences
