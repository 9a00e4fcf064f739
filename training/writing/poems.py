"""Poems from a fine-tuned model: completed freely or in form, and how likely a fixed model finds them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import UserError
from models.generation import generate
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.logits import LogitsProcessor, encourage_line_end, stop_after_lines
from models.tokenizer import load_tokenizer
from poetry.measures import perplexity_interval
from poetry.pronunciation import pronounce, words_of
from poetry.rhyme import SHAKESPEARE
from poetry.sonnets import N_GIVEN, Sonnet
from training.device import Device
from training.interrupt import Check
from training.writing.decoding import decoding_of, unused_filters
from training.writing.job import Likelihood, Text, encode_texts, likelihoods
from training.writing.run import Writer, WritingRun, end_token
from training.writing.sonnet_form import LONGEST_LINE, Form, SonnetWriter

N_LINES = len(SHAKESPEARE)
BATCH = 8  # poems whose likelihood is computed together
PUNCTUATION = frozenset(",.;:!?")


def decoding_problems(settings: Any, given: Collection[str]) -> list[str]:
    """Decoding flags that contradict each other; ``--decode sonnet`` always samples whole lines.

    Args:
        given: the names of the settings that the user set.
    """
    problems = []
    if settings.decode == "sonnet":
        if settings.temperature == 0:
            problems.append("--temperature 0: --decode sonnet draws its lines; give one above 0, or leave it out")
        if (settings.beams or 1) > 1:
            problems.append(f"--beams {settings.beams}: --decode sonnet draws its lines; leave it out")
        if "max_new_tokens" in given:
            flag = f"--max-new-tokens {settings.max_new_tokens}"
            problems.append(f"{flag}: --decode sonnet writes fourteen lines, however long; leave it out")
        problems += [
            f"--{name.replace('_', '-')}: goes with --decode free; leave it out"
            for name in ("line_end_boost", "line_words")
            if name in given
        ]
    else:
        problems += [
            f"--{name}: goes with --decode sonnet; add that, or leave it out"
            for name in ("meter", "candidates")
            if name in given
        ]
        if "line_words" in given and settings.line_end_boost is None:
            problems.append("--line-words: says from where on --line-end-boost holds; add that, or leave it out")
        problems += unused_filters(settings, given)
    if not problems:
        try:
            decoding_of(settings)
        except UserError as error:
            problems += error.problems
    return problems


Completer = Callable[[Sequence[Sequence[str]], Sequence[int]], list[list[str]]]  # (given lines, seeds) -> poems' lines


def make_completer(writer: Writer, settings: Any, training: Sequence[Sonnet], indent: str) -> Completer:
    """What completes poems as ``--decode`` says; made once, because it looks through the whole vocabulary."""
    if settings.decode == "sonnet":
        form = Form(candidates=settings.candidates, meter=settings.meter)
        words = closing_words(training, writer.tokenizer)
        poet = SonnetWriter(writer.fast, writer.tokenizer, writer.end, words, decoding_of(settings), form, indent)
        return lambda given, seeds: [
            poet.complete(lines, seed, writer.check) for lines, seed in zip(given, seeds, strict=True)
        ]
    pieces = {token: writer.tokenizer.decode([token]) for token in range(len(writer.tokenizer))}
    line_ends = [token for token, piece in pieces.items() if "\n" in piece]
    processors: list[LogitsProcessor] = []
    if settings.line_end_boost is not None:
        marks = [token for token, piece in pieces.items() if piece in PUNCTUATION]
        starts = [token for token, piece in pieces.items() if piece.startswith(" ") and piece.strip()]
        processors.append(
            encourage_line_end(settings.line_words, settings.line_end_boost, line_ends, marks, word_starts=starts)
        )
    return lambda given, seeds: complete_freely(writer, settings, given, seeds, line_ends, processors)


def complete_freely(
    writer: Writer,
    settings: Any,
    given: Sequence[Sequence[str]],
    seeds: Sequence[int],
    line_ends: Sequence[int],
    processors: Sequence[LogitsProcessor] = (),
) -> list[list[str]]:
    """Plain sampling after the given lines, until the end token or the fourteenth line break."""
    tokenizer = writer.tokenizer
    texts = ["".join(f"{line}\n" for line in lines) for lines in given]
    prompts = [[writer.end, *ids] for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    found = generate(
        writer.fast, prompts, decoding_of(settings), seeds=seeds, max_new_tokens=settings.max_new_tokens,
        stop_ids=[writer.end], stop=stop_after_lines(N_LINES, line_ends), processors=processors,
    )  # fmt: skip
    poems = []
    for lines, tokens in zip(given, found, strict=True):
        text = tokenizer.decode([token for token in tokens if token != writer.end], clean_up_tokenization_spaces=False)
        poems.append([*lines, *(line.rstrip() for line in text.split("\n") if line.strip())])
    return poems


def closing_words(training: Sequence[Sonnet], tokenizer: Any) -> list[str]:
    """Words that may close a line: the training poems' own, the most frequent first, then the vocabulary's.

    Of the vocabulary's pieces those that the dictionary knows: others ("env") are parts of words.
    """
    parts = (part for poem in training for line in poem.lines for word in words_of(line) for part in word.split("-"))
    words = Counter(part for part in parts if re.fullmatch(r"[a-z']+", part))
    own = [word.strip("'") for word, _ in words.most_common()]
    pieces = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    others = [piece[1:] for piece in pieces if re.fullmatch(r" [a-z]{3,}", piece)]
    others = [word for word in others if pronounce(word)[0].origin == "dictionary"]
    return list(dict.fromkeys([word for word in own if word] + others))


def beginning(poem: Sonnet, n_given: int = N_GIVEN) -> Text:
    """A poem whose first lines are given."""
    return Text(
        str(poem.number), "".join(f"{line}\n" for line in poem.lines[:n_given]), "\n".join(poem.lines[n_given:])
    )


def room_problems(settings: Any, prompts: Mapping[Path, Sequence[Sonnet]], tokenizer: Any, context: int) -> list[str]:
    """Beginnings after which the model's context has no room for what is to be written; one line for each.

    Args:
        prompts: file -> whole poems or beginnings, of which the given lines count.
        context: in tokens.
    """
    problems = []
    for path, poems in prompts.items():
        for poem in poems:
            text = beginning(poem).prompt
            n_tokens = 1 + len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else [])
            missing = N_LINES - min(len(poem.lines), N_GIVEN)
            room, what = 1, "more"
            if settings.decode == "sonnet":
                room, what = missing * LONGEST_LINE, f"{missing} lines in form"
            if n_tokens + room > context:
                problems.append(
                    f"{path}: poem {poem.number}: its {n_tokens} given tokens and room for {what} are more than the "
                    f"model's context of {context}; shorten it"
                )
    return problems


# ---------------------------------------------------------------------------------------------------------------------
# How likely they are
# ---------------------------------------------------------------------------------------------------------------------


def likelihoods_of_endings(run: WritingRun, writer: Writer) -> list[Likelihood]:
    """Of the true endings that are reported on, by the fine-tuned model.

    It needs no sampling, so it tells strategies apart more surely than what they happen to write.
    """
    texts = run.texts["report"]
    encoded = encode_texts(texts, writer.tokenizer, writer.end, writer.gpt2.max_tokens)
    return likelihoods(GPT2LanguageModel(writer.gpt2), texts, encoded, BATCH, writer.device, writer.check)


def likelihoods_of_generated(
    folder: Path, texts: Sequence[Text], device: Device, check: Check = lambda: None
) -> list[Likelihood]:
    """Of what was written, under a fixed reference model: in a run the one that it started from, for every strategy.

    Texts in which nothing was written, and those that its context does not hold, are left out.

    Args:
        folder: the reference's checkpoint, whose own tokenizer is used.
    """
    reference = GPT2Model.from_pretrained(folder).eval().to(device.accelerator.device)
    written = [text for text in texts if text.rest.strip()]
    tokenizer = load_tokenizer(folder, reference.config)
    encoded = encode_texts(written, tokenizer, end_token(reference.config), 10**9)
    fitting = [i for i, row in enumerate(encoded) if len(row.tokens) - 1 <= reference.max_tokens]
    texts, encoded = [written[i] for i in fitting], [encoded[i] for i in fitting]
    return likelihoods(GPT2LanguageModel(reference), texts, encoded, BATCH, device, check)


def reference_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Which model ``generated_perplexity`` is by, from what ``config.json`` says of it."""
    return {"name": record["used"], "weights_sha256": record["weights_sha256"]}


def interval_of_perplexity(found: Sequence[Likelihood], seed: int, *, per_word: bool = False) -> list[float]:
    """The 95 % interval over prompts of the perplexity per token or word of poems, whose ids are numbers."""
    counts = [one.n_words if per_word else one.n_tokens for one in found]
    return perplexity_interval([int(one.id) for one in found], [one.nats for one in found], counts, seed=seed)


def perplexity_of_generated(found: Sequence[Likelihood], n_texts: int) -> dict[str, float]:
    """Per token.

    Args:
        found: by :func:`likelihoods_of_generated`.
        n_texts: how many texts there were.

    Returns:
        ``generated_perplexity``, if anything was written; and ``generated_left_out``, the number of texts that were
        left out, if there are any.
    """
    values: dict[str, float] = {}
    if found:
        nats = sum(one.nats for one in found) / sum(one.n_tokens for one in found)
        values["generated_perplexity"] = math.exp(min(nats, 700.0))
    if len(found) < n_texts:
        values["generated_left_out"] = n_texts - len(found)
    return values
