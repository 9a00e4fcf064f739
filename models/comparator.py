"""What GPT-2 is compared with: encoders such as BERT, and any other sequence classifier that ``transformers`` loads.

This is the one place that runs models of ``transformers``. A GPT-2 never comes here: it is this project's own.
Nothing in a checkpoint is executed: weights are safetensors, or pickles read with ``weights_only=True``, and code that
a checkpoint brings is not run.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from config import UserError
from models.files import read_json
from models.tokenizer import saving_tokenizer

TEXTS_PER_CALL = 10_000  # a tokenizer returns far more than the ids: never for all texts at once
NO_LIMIT = 10**6  # tokenizers without a limit of their own name a huge one
_BLOCK = re.compile(r"(?:layers?|blocks?|\bh)\.(\d+)\.")
# Nothing of a checkpoint but its tensors is used, and nothing is looked up elsewhere. Attention is the plain products:
# every architecture has them, and the name of another kernel in config.json is not followed.
_FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}
_AS_MODEL = {"attn_implementation": "eager", "dtype": torch.float32}


# ---------------------------------------------------------------------------------------------------------------------
# Configuration
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparatorConfig:
    """The architecture of a checkpoint that is no GPT-2.

    Attributes:
        model_type: such as "bert".
        raw: the configuration of ``transformers``.
        max_positions: the longest text that the model can read, special tokens included; None: it has no limit.
        vocab_size: rows of its embedding.
        has_token_types: whether it is told which tokens are a pair's second text.
    """

    folder: Path
    model_type: str
    raw: Any
    max_positions: int | None
    vocab_size: int
    has_token_types: bool


def is_comparator(folder: Path) -> bool:
    """Whether a checkpoint names an architecture other than GPT-2."""
    return read_json(folder / "config.json").get("model_type") not in (None, "gpt2")


def read_comparator(folder: Path) -> ComparatorConfig:
    """The architecture of the checkpoint in a folder, without its weights.

    Raises:
        UserError: ``transformers`` does not know it, or has no sequence classifier of its kind.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    model_type = read_json(path).get("model_type")
    try:
        with _quiet():
            raw = AutoConfig.from_pretrained(folder, **_FROM_FOLDER)
            model = _skeleton(raw, 2)
    except Exception as error:  # of many kinds, by architecture
        raise UserError(
            f"{path}: model_type {model_type!r} is neither GPT-2 nor a sequence classifier that transformers can make "
            f"from this file ({_first_line(error)}); give another model"
        ) from None
    if getattr(raw, "quantization_config", None) is not None:
        raise UserError(f"{path}: the weights are quantized; give the model that they were made from")
    body = model.base_model
    if body is model:
        raise UserError(f"{path}: a classifier of type {model_type!r} has no head of its own; give another model")
    return ComparatorConfig(
        folder=folder,
        model_type=str(model_type),
        raw=raw,
        max_positions=_max_positions(raw, body),
        vocab_size=body.get_input_embeddings().num_embeddings,
        has_token_types="token_type_ids" in inspect.signature(model.forward).parameters
        and getattr(raw, "type_vocab_size", 2) > 1,
    )


def _max_positions(raw: Any, body: nn.Module) -> int | None:
    """RoBERTa and its kin count positions from behind the padding's, so their tables hold fewer than they have rows."""
    named = getattr(raw, "max_position_embeddings", None)
    limits = [named] if isinstance(named, int) and named > 0 else []
    for name, module in body.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min(limits, default=None)


def _skeleton(raw: Any, num_labels: int) -> Any:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return _untrained(raw, num_labels)


def _untrained(raw: Any, num_labels: int, pad_token_id: int | None = None) -> Any:
    """The model of ``transformers`` with random weights."""
    from transformers import AutoModelForSequenceClassification

    own = copy.deepcopy(raw)
    own.num_labels = num_labels
    if getattr(own, "pad_token_id", None) is None:
        own.pad_token_id = pad_token_id
    with _quiet():
        return AutoModelForSequenceClassification.from_config(own, trust_remote_code=False, **_AS_MODEL)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages and progress bars of ``transformers``: what a user should know is said by the run."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


# ---------------------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------------------


class Comparator(nn.Module):
    """A sequence classifier of ``transformers``, with the interface of this project's own.

    Its *body* is what ``transformers`` calls the base model, a pooler in it included; its *head* is the rest. A frozen
    body is computed without dropout.

    Args:
        model: what ``AutoModelForSequenceClassification`` made.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: (num_labels,) what each class's examples count in the loss.
    """

    class_weights: Tensor | None

    def __init__(self, model: Any, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.body_is_frozen = False
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @property
    def body(self) -> Any:
        return self.model.base_model

    def freeze_body(self) -> None:
        """Leaves the head alone to train."""
        self.body.requires_grad_(False)
        self.body_is_frozen = True

    def forward(self, labels: Tensor | None = None, features: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """The tokenizer's tensors (B, T), or features (B, width) that were computed before.

        Returns:
            Logits (B, num_labels) in fp32; with ``labels`` (B,) the summed cross-entropy instead.
        """
        if self.body_is_frozen:
            self.body.eval()
        logits = self.model(**inputs).logits if features is None else self._head(features)
        with torch.autocast(logits.device.type, enabled=False):
            if labels is None:
                return logits.float()
            return F.cross_entropy(
                logits.float(),
                labels,
                weight=self.class_weights,
                label_smoothing=self.label_smoothing,
                reduction="sum",
            )

    def features(self, **inputs: Tensor) -> Tensor:
        """(B, T) -> (B, width): the first token's state, and behind it the pooler's output if the body has one."""
        output = self.body(**inputs)
        pooled = getattr(output, "pooler_output", None)
        first = output.last_hidden_state[:, 0]
        return first if pooled is None else torch.cat([first, pooled], dim=-1)

    def reads_features(self, **inputs: Tensor) -> bool:
        """Whether the head computes the same from :meth:`features` as from the body's whole output, on some texts."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return torch.allclose(self(**inputs), self(features=self.features(**inputs)), atol=1e-5)
        except Exception:  # a head that needs the tokens, or an output of another form
            return False
        finally:
            self.train(was_training)

    def _head(self, features: Tensor) -> Tensor:
        """Runs the classifier on a body that answers with the features."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        first, pooled = features, None
        width = self.body.config.hidden_size
        if features.shape[-1] > width:
            first, pooled = features[:, :width], features[:, width:]
        answer = BaseModelOutputWithPooling(last_hidden_state=first[:, None], pooler_output=pooled)
        body = self.body
        body.forward = lambda *args, **kwargs: answer
        try:
            return self.model().logits
        finally:
            del body.forward

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Embeddings, blocks (of an encoder-decoder both ones of a number together), the rest of the body, the head."""
        of_body = {id(parameter) for parameter in self.body.parameters()}
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            found.setdefault(_group_of(name) if id(parameter) in of_body else "head", []).append(parameter)
        blocks = sorted((name for name in found if name.startswith("block ")), key=lambda name: int(name.split()[1]))
        order = ["embeddings", *blocks, "other", "pooler", "head"]
        return {name: found[name] for name in order if name in found}

    def save_pretrained(self, folder: Path, label_names: list[str]) -> None:
        """Writes the folder that ``transformers.AutoModelForSequenceClassification`` loads.

        Raises:
            OSError: it can't be written.
        """
        self.model.config.id2label = dict(enumerate(label_names))
        self.model.config.label2id = {name: i for i, name in enumerate(label_names)}
        self.model.config.problem_type = "single_label_classification"
        try:
            with _quiet():
                self.model.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(f"{folder}: could not be written ({error})") from error


def _group_of(name: str) -> str:
    """The layer group of a parameter of the body."""
    block = _BLOCK.search(name)
    if block:
        return f"block {block[1]}"
    if "pooler" in name:
        return "pooler"
    return "embeddings" if re.search(r"embed|\bw[tp]e\b|\bshared\b", name) else "other"


def comparator_skeleton(config: ComparatorConfig, num_labels: int) -> Any:
    """The model of ``transformers`` on the meta device: shapes, and no memory."""
    return _skeleton(config.raw, num_labels)


def start_comparator(
    config: ComparatorConfig, num_labels: int, pad_token_id: int, random_init: bool = False
) -> tuple[Any, list[str]]:
    """The model of ``transformers`` that is about to train: the checkpoint's body, and a new head.

    The head is new also where the checkpoint has one, as with GPT-2: it is drawn from torch's generator.

    Args:
        random_init: draw the body too.

    Returns:
        The model, and the names of a pooler's weights that the checkpoint does not have, which are drawn too.

    Raises:
        UserError: the checkpoint's weights can't be read, or are not the body's.
    """
    model = _untrained(config.raw, num_labels, pad_token_id)
    if random_init:
        return model, []
    stored, lacking = _stored(config.folder, copy.deepcopy(model.config))
    body = model.base_model_prefix + "."
    missing = sorted(name for name in lacking if name.startswith(body))
    needed = [name for name in missing if "pooler" not in name]
    if needed:
        more = f" and {len(needed) - 5} more" if len(needed) > 5 else ""
        raise UserError(
            f"{config.folder}: tensors are missing, or have another shape than config.json says: "
            f"{', '.join(needed[:5])}{more}; fetch the checkpoint again"
        )
    drawn = {name.removeprefix(body) for name in missing}
    weights = {name: tensor for name, tensor in stored.base_model.state_dict().items() if name not in drawn}
    model.base_model.load_state_dict(weights, strict=False)
    return model, missing


def load_comparator(folder: Path) -> Comparator:
    """Loads a folder that ``save_pretrained`` wrote, for use.

    Raises:
        UserError: it is damaged, or not whole.
    """
    model, lacking = _stored(folder, read_comparator(folder).raw)
    if lacking:
        raise UserError(f"{folder}: tensors are missing: {', '.join(sorted(lacking)[:5])}; train a classifier first")
    return Comparator(model).eval()


def _stored(folder: Path, raw: Any) -> tuple[Any, set[str]]:
    """The checkpoint's model in fp32, and the names of the parameters that it lacks, or has in another shape."""
    from transformers import AutoModelForSequenceClassification

    try:
        with _quiet():
            model, about = AutoModelForSequenceClassification.from_pretrained(
                folder, config=raw, ignore_mismatched_sizes=True, output_loading_info=True, weights_only=True,
                **_FROM_FOLDER, **_AS_MODEL,
            )  # fmt: skip
    except Exception as error:  # of many kinds, by file format
        raise UserError(f"{folder}: the weights can't be read ({_first_line(error)}); fetch it again") from None
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{folder}: tensor {broken[0]!r} holds NaN or infinite values; fetch the checkpoint again")
    return model, set(about["missing_keys"]) | {name for name, *_ in about["mismatched_keys"]}


# ---------------------------------------------------------------------------------------------------------------------
# Its tokenizer
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedTexts:
    """Texts, or pairs, as a comparator reads them.

    Attributes:
        ids: per text, special tokens included.
        token_types: beside them, which text of a pair a token is of; None where the model is not told.
        n_cut: how many were cut to fit.
    """

    ids: list[list[int]]
    token_types: list[list[int]] | None
    n_cut: int


class ComparatorTokenizer:
    """The tokenizer that belongs to a comparator.

    Raises:
        UserError: it can't be loaded, or belongs to another model.
    """

    def __init__(self, folder: Path, config: ComparatorConfig) -> None:
        from transformers import AutoTokenizer

        try:
            with _quiet():
                raw = AutoTokenizer.from_pretrained(folder, **_FROM_FOLDER)
        except Exception as error:  # of many kinds, by tokenizer
            raise UserError(f"{folder}: the tokenizer can't be loaded ({_first_line(error)}); give another") from None
        if raw.pad_token_id is None:
            if raw.eos_token is None:
                raise UserError(f"{folder}: the tokenizer names no padding token; add one to tokenizer_config.json")
            raw.pad_token = raw.eos_token
        highest = max(raw.get_vocab().values(), default=-1)
        if highest >= config.vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has token id {highest}, but the model's vocabulary ends at "
                f"{config.vocab_size - 1}; this tokenizer belongs to another model"
            )
        limits = [config.max_positions, raw.model_max_length if raw.model_max_length < NO_LIMIT else None]
        self.raw = raw
        self.max_tokens: int = min((limit for limit in limits if limit), default=512)
        self.has_token_types = config.has_token_types
        if self.max_tokens < raw.num_special_tokens_to_add(pair=True) + 2:
            raise UserError(f"{folder}: {self.max_tokens} tokens leave no room for text; give another model")

    @property
    def pad_token_id(self) -> int:
        return self.raw.pad_token_id

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None, keep: str) -> EncodedTexts:
        """Tokenizes texts, or pairs of them, as the model was pretrained to read them.

        Args:
            seconds: the second texts of pairs, of which the longer text loses tokens first, from its end.
            keep: which end of a single text stays where it is too long, "start" or "end".
        """
        found = self._call(texts, seconds)
        too_long = [i for i, row in enumerate(found["input_ids"]) if len(row) > self.max_tokens]
        if too_long:
            few = None if seconds is None else [seconds[i] for i in too_long]
            side = "left" if keep == "end" and seconds is None else "right"
            cut = self._call([texts[i] for i in too_long], few, side)
            for name, rows in found.items():
                for i, row in zip(too_long, cut[name], strict=True):
                    rows[i] = row
        return EncodedTexts(found["input_ids"], found.get("token_type_ids"), len(too_long))

    def _call(self, texts: Sequence[str], seconds: Sequence[str] | None, cut: str = "") -> dict[str, list[list[int]]]:
        """``input_ids``, and ``token_type_ids`` where the model has them; ``cut`` is the side that long texts lose."""
        raw, side = self.raw, self.raw.truncation_side
        names = ["input_ids", *(["token_type_ids"] if self.has_token_types else [])]
        options: dict[str, Any] = {"truncation": False}
        if cut:
            options = {"truncation": "longest_first", "max_length": self.max_tokens}
            raw.truncation_side = cut
        rows: dict[str, list[list[int]]] = {name: [] for name in names}
        known: dict[int, int] = {}  # equal ids are one object
        try:
            for start in range(0, len(texts), TEXTS_PER_CALL):
                few = slice(start, start + TEXTS_PER_CALL)
                with _quiet():
                    found = raw(
                        list(texts[few]), None if seconds is None else list(seconds[few]), padding=False, verbose=False,
                        return_attention_mask=False, return_token_type_ids=self.has_token_types, **options,
                    )  # fmt: skip
                for name in names:
                    rows[name] += [[known.setdefault(token, token) for token in row] for row in found[name]]
        finally:
            raw.truncation_side = side
            if raw.is_fast:  # else tokenizer.json would be saved with it
                raw.backend_tokenizer.no_truncation()
        return rows

    def batch(self, encoded: EncodedTexts, indices: Sequence[int]) -> dict[str, Tensor]:
        """Some of the texts as the model's arguments, each (B, longest), padded on the tokenizer's own side."""
        ids = [encoded.ids[i] for i in indices]
        found = {
            "input_ids": self._padded(ids, self.pad_token_id),
            "attention_mask": self._padded([[1] * len(row) for row in ids], 0),
        }
        if encoded.token_types is not None:
            types = [encoded.token_types[i] for i in indices]
            found["token_type_ids"] = self._padded(types, self.raw.pad_token_type_id)
        return found

    def _padded(self, rows: Sequence[list[int]], value: int) -> Tensor:
        longest = max(map(len, rows))
        fill = [[value] * (longest - len(row)) for row in rows]
        left = self.raw.padding_side == "left"
        return torch.tensor([f + row if left else row + f for f, row in zip(fill, rows, strict=True)])

    def save(self, folder: Path) -> None:
        """Writes the files that ``transformers.AutoTokenizer`` loads."""
        with _quiet(), saving_tokenizer(folder):
            self.raw.save_pretrained(folder)
