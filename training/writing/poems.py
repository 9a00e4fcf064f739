"""Poems from a fine-tuned model: completed freely or in form, and how likely a fixed model finds them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from config import UserError
from models.generation import generate
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.logits import stop_after_lines
from poetry.rhyme import SHAKESPEARE
from poetry.sonnets import Sonnet
from training.writing.decoding import decoding_of, unused_filters
from training.writing.job import Text, encode_texts, log_likelihoods, perplexity
from training.writing.run import Writer, WritingRun
from training.writing.sonnet_form import Form, SonnetWriter

N_LINES = len(SHAKESPEARE)


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
    else:
        problems += [
            f"--{name}: goes with --decode sonnet; add that, or leave it out"
            for name in ("meter", "candidates")
            if name in given
        ]
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
    line_ends = [token for token in range(len(writer.tokenizer)) if "\n" in writer.tokenizer.decode([token])]
    return lambda given, seeds: complete_freely(writer, settings, given, seeds, line_ends)


def complete_freely(
    writer: Writer, settings: Any, given: Sequence[Sequence[str]], seeds: Sequence[int], line_ends: Sequence[int]
) -> list[list[str]]:
    """Plain sampling after the given lines, until the end token or the fourteenth line break."""
    tokenizer = writer.tokenizer
    texts = ["".join(f"{line}\n" for line in lines) for lines in given]
    prompts = [[writer.end, *ids] for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    found = generate(
        writer.fast, prompts, decoding_of(settings), seeds=seeds, max_new_tokens=settings.max_new_tokens,
        stop_ids=[writer.end], stop=stop_after_lines(N_LINES, line_ends),
    )  # fmt: skip
    poems = []
    for lines, tokens in zip(given, found, strict=True):
        text = tokenizer.decode([token for token in tokens if token != writer.end], clean_up_tokenization_spaces=False)
        poems.append([*lines, *(line.rstrip() for line in text.split("\n") if line.strip())])
    return poems


def closing_words(training: Sequence[Sonnet], tokenizer: Any) -> list[str]:
    """Words that may close a line: the training poems' own, the most frequent first, then the vocabulary's."""
    words = Counter(word for poem in training for line in poem.lines for word in re.findall(r"[a-z']+", line.lower()))
    own = [word.strip("'") for word, _ in words.most_common()]
    pieces = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    others = [piece[1:] for piece in pieces if re.fullmatch(r" [a-z]{3,}", piece)]
    return list(dict.fromkeys([word for word in own if word] + others))


def likelihoods_of_endings(run: WritingRun, writer: Writer) -> dict[str, float]:
    """Of the true endings that are reported on, by the fine-tuned model: id -> mean log-probability of a token, nats.

    It needs no sampling, so it tells strategies apart more surely than what they happen to write.
    """
    texts = run.texts["report"]
    encoded = encode_texts(texts, writer.tokenizer, writer.end, writer.gpt2.max_tokens)
    found = log_likelihoods(GPT2LanguageModel(writer.gpt2), encoded, 8, writer.device, writer.check)
    return {text.id: value for text, value in zip(texts, found, strict=True)}


def perplexity_of_generated(run: WritingRun, writer: Writer, texts: Sequence[Text]) -> dict[str, float]:
    """Per token, of what was written, under the model that the run started from: the same for every strategy.

    Returns:
        ``generated_perplexity``, if anything was written; and ``generated_left_out``, the number of texts in which
        nothing was, or which that model's context does not hold, if there are any.
    """
    reference = GPT2Model.from_pretrained(run.checkpoint.folder).eval().to(writer.device.accelerator.device)
    written = [text for text in texts if text.rest.strip()]
    encoded = encode_texts(written, writer.tokenizer, writer.end, 10**9)
    fitting = [text for text in encoded if len(text.tokens) - 1 <= reference.config.n_positions]
    found: dict[str, float] = {}
    if fitting:
        measured = perplexity(GPT2LanguageModel(reference), fitting, 8, writer.device, writer.check)
        found["generated_perplexity"] = measured["perplexity"]
    if len(fitting) < len(texts):
        found["generated_left_out"] = len(texts) - len(fitting)
    return found
