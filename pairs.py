"""Pairs of questions: the text that the model reads, its tokens, and how much of dev and test stands in train."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from config import UserError
from datasets import REPEATS_SHOWN, Split, Tokenized, encode, normalized, token_ids

PAIR_FORMAT = "One question: {first}\nAnother question: {second}\nDo they ask the same thing? The answer is"
"""What the model reads of a pair, in training and evaluation alike. The next word is " yes" or " no". Its space belongs
to its token, so the text ends without one; inside a sentence these words are written small."""

_HEAD, _REST = PAIR_FORMAT.split("{first}")
_MIDDLE, _TAIL = _REST.split("{second}")


def tokenize_pairs(pairs: Sequence[tuple[str, str]], tokenizer: Any, max_length: int) -> Tokenized:
    """The tokens of :data:`PAIR_FORMAT`, filled with each pair of questions.

    Where that is more than ``max_length`` tokens, the questions lose tokens from their ends, in proportion to their
    lengths; at least one token stays of each, and the words around them stay whole.

    Raises:
        UserError: the words around the questions leave no room for them.
    """
    texts = [f"{_HEAD}{first}{_MIDDLE}{second}{_TAIL}" for first, second in pairs]
    ids = token_ids(texts, tokenizer)
    too_long = [i for i, row in enumerate(ids) if len(row) > max_length]
    for i, offsets in zip(too_long, encode([texts[i] for i in too_long], tokenizer, "offset_mapping"), strict=True):
        ids[i] = _cut_pair(ids[i], [end for _, end in offsets], pairs[i], max_length)
    return Tokenized(ids, n_cut=len(too_long))


def check_room(tokenizer: Any, max_length: int) -> None:
    """Refuses a model that can't read a single pair.

    Raises:
        UserError: as :func:`tokenize_pairs`.
    """
    longer_than_fits = " ".join(["a"] * max_length)
    tokenize_pairs([(longer_than_fits, longer_than_fits)], tokenizer, max_length)


def _cut_pair(ids: list[int], ends: list[int], pair: tuple[str, str], max_length: int) -> list[int]:
    """``ends``: the place in the text where each token ends. A token that reaches beyond a question is never cut."""
    places, place = [], 0
    for part in (_HEAD, pair[0], _MIDDLE, pair[1]):
        place += len(part)
        places.append(bisect_right(ends, place))
    a, b, c, d = places  # ids[a:b] and ids[c:d] are the questions
    first, second = b - a, d - c
    room = max_length - (len(ids) - first - second)
    if room < 2:
        needed = len(ids) - first - second + 2
        raise UserError(
            f"the model reads {max_length} tokens, but the words around two questions and one token of each take "
            f"{needed}; use a model with a longer context"
        )
    share = (2 * room * first + first + second) // (2 * (first + second))  # rounded
    share = min(max(share, min(first, 1)), room - min(second, 1))
    return ids[: a + share] + ids[b : c + room - share] + ids[d:]


def question_overlap(splits: Mapping[str, Split]) -> dict[str, dict[str, Any]]:
    """How much of the pairs of dev and test stands in train: as questions, and as pairs in either order.

    Case and the width of spaces do not matter. Returns plain data for JSON, per split::

        {"questions": n, "questions_in_train": n,
         "pairs": n, "both_in_train": n, "one_in_train": n, "none_in_train": n,
         "pairs_in_train": n, "examples": [{"questions": [..., ...], "line": n, "train_lines": [...]}, ...]}

    where questions are counted once however often they occur, and pairs as rows. ``both_in_train``, ``one_in_train``
    and ``none_in_train`` say how many of a pair's questions stand in train, wherever; they add up to ``pairs``.
    ``pairs_in_train`` counts those whose two questions stand side by side there, and ``examples`` shows some.
    """
    train_questions: set[str] = set()
    train_lines: dict[tuple[str, ...], list[int]] = {}
    for example in splits["train"].examples if "train" in splits else ():
        pair = normalized(example)
        train_questions.update(pair)
        train_lines.setdefault(tuple(sorted(pair)), []).append(example.line)
    report: dict[str, dict[str, Any]] = {}
    for name, split in splits.items():
        if name == "train":
            continue
        pairs = [normalized(example) for example in split.examples]
        questions = {question for pair in pairs for question in pair}
        n_in_train = [sum(question in train_questions for question in pair) for pair in pairs]
        repeated = [i for i, pair in enumerate(pairs) if tuple(sorted(pair)) in train_lines]
        report[name] = {
            "questions": len(questions),
            "questions_in_train": len(questions & train_questions),
            "pairs": len(pairs),
            "both_in_train": n_in_train.count(2),
            "one_in_train": n_in_train.count(1),
            "none_in_train": n_in_train.count(0),
            "pairs_in_train": len(repeated),
            "examples": [
                {
                    "questions": list(pairs[i]),
                    "line": split.examples[i].line,
                    "train_lines": train_lines[tuple(sorted(pairs[i]))],
                }
                for i in repeated[:REPEATS_SHOWN]
            ],
        }
    return report
