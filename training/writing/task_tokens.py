"""The tokens that tell a language model its task: found in the vocabulary or added to it, trained, and saved.

A task token is taken as it is where the vocabulary has it. Else a token that its makers left spare (``<unused0>``, as
KoGPT-2's hundred) stands for it, or one is added and the embedding grows. Its row then trains under every strategy,
those that freeze the embedding included: without it an adapter would have to tell apart tokens that mean nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config import GPT2Config, UserError, WritingSettings
from models.checkpoint import read_config
from models.files import read_json
from models.gpt2 import GPT2Model
from models.tokenizer import load_tokenizer
from models.vocabulary import grow_vocabulary
from optimizer import parameter_groups
from training.accounting import count_parameters
from training.fine_tuning import rate_factors

SAVED_AS = "task_tokens"  # the entry of config.json: task token -> id
GROUP = "task tokens"  # of the optimizer
END = "</s>"  # for a model that names no end token
_SPARE = re.compile(r"<unused_?(\d+)>")


@dataclass(frozen=True)
class TaskVocabulary:
    """A model's vocabulary with the task tokens in it.

    Attributes:
        tokenizer: splits no task token; knows the added ones.
        config: the model's, with as many tokens as are needed.
        ids: task token -> its id.
        trained: the ids whose rows no pretraining has filled: those of spare and added tokens.
        new: those of them that the tokenizer lacked: their rows start at the mean of the others.
        added: how many rows the embedding grows by; fewer than the new tokens where it has more than the tokenizer.
        spare: task token -> the spare token that stands for it.
        recorded: ``ids``, and those that the checkpoint was taught for other tasks; saved with the model.
    """

    tokenizer: Any
    config: GPT2Config
    ids: dict[str, int]
    trained: tuple[int, ...]
    new: tuple[int, ...]
    added: int
    spare: dict[str, str]
    recorded: dict[str, int]

    @property
    def end(self) -> int:
        """What texts end with, and begin with: pretraining reads every document after it."""
        assert self.config.eos_token_id is not None
        return self.config.eos_token_id

    def note(self) -> str:
        """Where the task tokens come from, for the user."""
        kinds = []
        known = [name for name in self.ids if self.ids[name] not in self.trained]
        added = [name for name in self.ids if self.ids[name] in self.trained and name not in self.spare]
        if known:
            kinds.append(f"{' '.join(known)} known")
        if self.spare:
            kinds.append(", ".join(f"{name} as {spare}" for name, spare in self.spare.items()))
        if added:
            kinds.append(f"{' '.join(added)} added")
        return "; ".join(kinds) or "none"


def find_task_tokens(folder: Path, config: GPT2Config, names: Sequence[str]) -> TaskVocabulary:
    """Finds a token for each name in a checkpoint's vocabulary, and adds those that are not there.

    Raises:
        UserError: the tokenizer can't be read.
    """
    tokenizer: Any = load_tokenizer(folder, config)
    vocabulary = tokenizer.get_vocab()
    recorded = read_json(folder / "config.json").get(SAVED_AS)
    known: dict[str, int] = recorded if isinstance(recorded, dict) else {}
    taken = {*known.values(), config.bos_token_id, config.eos_token_id}
    numbered = sorted((int(match[1]), token) for token in vocabulary if (match := _SPARE.fullmatch(token)))
    free = [token for _, token in numbered if vocabulary[token] not in taken]
    no_end = config.eos_token_id is None
    ids: dict[str, int] = {}
    spare: dict[str, str] = {}
    trained, new = [], []
    for name in [*names, END] if no_end else names:
        if name in known:
            ids[name] = known[name]
            _make_whole(tokenizer, str(tokenizer.convert_ids_to_tokens(known[name])))
        elif name in vocabulary:
            ids[name] = vocabulary[name]
            _make_whole(tokenizer, name)
        else:
            token = free.pop(0) if free else name
            _make_whole(tokenizer, token)
            ids[name] = int(tokenizer.convert_tokens_to_ids(token))
            trained.append(ids[name])
            if token == name:
                new.append(ids[name])
            else:
                spare[name] = token
    if no_end:
        config = dataclasses.replace(config, eos_token_id=ids[END])
        tokenizer.eos_token = spare.pop(END, END)
        del ids[END]
    size = max(config.vocab_size, *(token + 1 for token in (*ids.values(), *trained, 0)))
    added = size - config.vocab_size
    config = dataclasses.replace(config, vocab_size=size)
    return TaskVocabulary(tokenizer, config, ids, tuple(sorted(trained)), tuple(new), added, spare, known | ids)


def _make_whole(tokenizer: Any, token: str) -> None:
    """Makes the tokenizer take a token as one, adding it if it is not there; its id stays what it is."""
    tokenizer.add_tokens([token], special_tokens=True)


def saved_task_tokens(folder: Path, names: Sequence[str]) -> TaskVocabulary:
    """The vocabulary of a model that was saved with its task tokens.

    Raises:
        UserError: it has not all of them.
    """
    found = find_task_tokens(folder, read_config(folder), names)
    if found.trained:
        raise UserError(f"{folder}: its model knows no task tokens {', '.join(names)}; give a run of this task")
    return found


def load_grown(folder: Path, vocabulary: TaskVocabulary) -> GPT2Model:
    """A checkpoint's model with a row for each of its task tokens: where one is new, the mean of the known rows."""
    gpt2 = GPT2Model.from_pretrained(folder)
    if gpt2.config != vocabulary.config:
        gpt2 = grow_vocabulary(gpt2, vocabulary.config)
    if vocabulary.new:  # a padded embedding has rows for them already, which no token has trained
        weight = gpt2.wte.weight.detach()
        weight[list(vocabulary.new)] = weight[: min(vocabulary.new)].mean(dim=0)
    return gpt2


# ---------------------------------------------------------------------------------------------------------------------
# Training their rows alone
# ---------------------------------------------------------------------------------------------------------------------


def train_rows(gpt2: GPT2Model, rows: Sequence[int]) -> None:
    """Lets only these rows of the embedding train, where a strategy has frozen it; nothing changes where it trains.

    All other rows have a gradient of zero, so that AdamW without weight decay leaves them as they are, to the bit.
    """
    weight = gpt2.wte.weight
    if weight.requires_grad or not rows:
        return
    weight.requires_grad_(True)
    gpt2.trained_rows = tuple(rows)

    def keep_rows(gradient: Tensor) -> Tensor:
        index = torch.tensor(rows, device=gradient.device)
        return torch.zeros_like(gradient).index_copy_(0, index, gradient.index_select(0, index))

    weight.register_hook(keep_rows)


def optimizer_groups(gpt2: GPT2Model, model: nn.Module, settings: WritingSettings) -> list[dict[str, Any]]:
    """The optimizer's groups of a language model; an embedding of which only some rows train is one, without decay.

    Args:
        model: owns the parameters: the GPT-2 itself, or what is around it.
    """
    layers = gpt2.layer_groups()
    factors = rate_factors(list(layers), settings)
    if gpt2.trained_rows:
        weight = gpt2.wte.weight
        layers["embeddings"] = [parameter for parameter in layers["embeddings"] if parameter is not weight]
        layers[GROUP] = list(gpt2.wte.parameters())
    assert settings.lr is not None
    groups = parameter_groups(layers, model, settings.lr, settings.weight_decay or 0.0, factors)
    for group in groups:
        if group["name"] == GROUP:
            group["weight_decay"] = 0.0
    return groups


def as_shown(groups: list[dict[str, Any]], gpt2: GPT2Model) -> list[dict[str, Any]]:
    """The groups with what really trains of each, for the table that the user sees."""
    rows = [gpt2.wte.weight[: len(gpt2.trained_rows)]]
    return [group | {"params": rows} if group["name"] == GROUP else group for group in groups]


def count_trained(gpt2: GPT2Model) -> tuple[int, int]:
    """(trainable, all) parameters; of an embedding of which only some rows train, those rows count."""
    trainable, total = count_parameters(gpt2)
    if gpt2.trained_rows:
        trainable -= (gpt2.config.vocab_size - len(gpt2.trained_rows)) * gpt2.config.n_embd
    return trainable, total
