"""Questions about texts that may be longer than a model's context: put to windows, and the surest answer taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from config import TextTaskSettings
from tasks.questions import Question, cut_windows
from training.writing.run import Writer
from training.writing.targets import Written, encoder_of, room_for_writing, write_targets
from training.writing.task_texts import Part, TaskEncoder, TaskText

QUESTION, ANSWER = "<question>", "<answer>"
LEAST_ROOM = 16  # tokens of a context: fewer would hold no sentence


@dataclass(frozen=True)
class Asked:
    """A question, put to every window of its context.

    Attributes:
        windows: what the model continues, each ``context <question> question <answer>``.
        learnt: windows that hold the answer, with the answer as their target, for which they leave room.
        skipped: how many windows of that kind don't hold the answer.
    """

    question: Question
    windows: tuple[TaskText, ...]
    learnt: tuple[TaskText, ...]
    skipped: int = 0


def ask(
    questions: Sequence[Question], encoder: TaskEncoder, max_new_tokens: int, stride: int | None = None
) -> list[Asked]:
    """Puts each question to the windows of its context.

    Args:
        max_new_tokens: for which a window leaves room; one that is learnt, for the known answer too.
        stride: see :func:`tasks.questions.cut_windows`.
    """
    contexts = list(dict.fromkeys(question.context for question in questions))
    tokens = dict(zip(contexts, encoder.offsets(contexts), strict=True))
    targets = [target_of(question) for question in questions]
    question_ids = encoder.token_ids([question.question for question in questions])
    target_ids = encoder.token_ids(targets)
    kept_free = room_for_writing(max_new_tokens, encoder.context)
    asked = []
    for question, target, ids, own in zip(questions, targets, question_ids, target_ids, strict=True):
        room = encoder.context - 3 - len(ids)  # 3: the begin token and two task tokens
        places, known = (
            cut_windows(question.context, tokens[question.context], max(room - free, LEAST_ROOM), stride)
            for free in (kept_free, max(kept_free, len(own)))
        )
        learnt = tuple(
            dataclasses.replace(window, target=target)
            for window, place in zip(windows_at(question, known), known, strict=True)
            if question.is_answered_in(place)
        )
        asked.append(Asked(question, windows_at(question, places), learnt, len(known) - len(learnt)))
    return asked


def windows_at(question: Question, places: Sequence[tuple[int, int]]) -> tuple[TaskText, ...]:
    """The prompts of a question, one for each place in its context; the target is empty."""
    return tuple(
        TaskText(question.id if number == 1 else f"{question.id}, window {number}", parts_of(question, place), "")
        for number, place in enumerate(places, start=1)
    )


def parts_of(question: Question, place: tuple[int, int]) -> tuple[Part, ...]:
    """What stands before an answer: the part of the context at a place, and the question."""
    begin, end = place
    begin -= question.context[:begin].endswith(" ")  # the space belongs to the first word's token
    return (
        Part(question.context[begin:end], "source"),
        Part(QUESTION, "token"),
        Part(question.question, "given"),
        Part(ANSWER, "token"),
    )


def target_of(question: Question) -> str:
    """The first answer, with the space that stands before it in the context, so that its tokens are the same there."""
    if question.start is None:
        return ""
    return (" " if question.context[: question.start].endswith(" ") else "") + question.answers[0]


def write_answers(writer: Writer, asked: Sequence[Asked], settings: TextTaskSettings) -> list[tuple[TaskText, Written]]:
    """Of what is written for a question's windows, that with the best mean log-probability, and its window.

    A window for which nothing is written wins only where there is no other.
    """
    written = iter(write_targets(writer, [text for one in asked for text in one.windows], settings, with_scores=True))
    found = []
    for one in asked:
        answers = [(window, next(written)) for window in one.windows]
        window, answer = max(answers, key=lambda pair: (bool(pair[1].text), pair[1].mean_log_probability))
        found.append((dataclasses.replace(window, id=one.question.id, target=target_of(one.question)), answer))
    return found


def answer_one(writer: Writer, context: str, question: str, settings: TextTaskSettings, stride: int | None) -> Written:
    """The answer to a single question."""
    row = Question("question", "", context, question, (), None)
    ((_, written),) = write_answers(writer, ask([row], encoder_of(writer), settings.max_new_tokens, stride), settings)
    return written
