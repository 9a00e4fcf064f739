"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), written by hand.

Tensors carry HuggingFace's names (``wte, wpe, h.N.ln_1, ...``), so a published checkpoint loads as it is;
``models/checkpoint.py`` does the reading and writing.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_activations

from config import GPT2Config, UserError
from models import checkpoint
from models.files import PREFIX_FILE
from models.sources import find_checkpoint
from modules.attention import KeyValue
from modules.cache import Window
from modules.dropout import Dropout
from modules.gpt2_layer import GPT2Layer
from modules.layout import TokenLayout
from modules.packed_linear import PackedLinear
from modules.prefix import FixedPrefix, Prefix


class GPT2Model(nn.Module):
    """Token and position embeddings, ``n_layer`` pre-norm blocks, and a final LayerNorm.

    A new model has GPT-2's initialization: normal with standard deviation ``initializer_range``, the two maps that
    write into the residual stream divided by sqrt(2 * n_layer), biases zero.

    Attributes:
        recompute: whether the backward pass computes each block's activations again instead of keeping them (Chen et
            al. 2016): less memory for a third more work.
        prefix: keys and values in front of every block's own (``modules/prefix.py``); None, or set by the caller. It
            takes the first positions, so that a text begins at position ``prefix.length``.
        unembedding: the map to logits in a faster form (``models/generation.py``); None: the token embedding itself.
        trained_rows: the rows of the token embedding that train, where only some do: those of task tokens.
    """

    recompute = False
    trained_rows: tuple[int, ...] = ()

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT2Layer(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.prefix: Prefix | FixedPrefix | None = None
        self.unembedding: PackedLinear | None = None
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=config.initializer_range / math.sqrt(2 * config.n_layer))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def max_tokens(self) -> int:
        """The longest text that the model takes: its positions, less those of a prefix."""
        return self.config.n_positions - (0 if self.prefix is None else self.prefix.length)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the model over a padded batch; padding may be on either side and is not computed.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, T), 1 for real tokens and 0 for padding; None means that all are real.

        Returns:
            ``last_hidden_state`` (B, T, n_embd), after the final LayerNorm, zero at padding; and ``last_token``
            (B, n_embd), that of each sequence's last real token.

        Raises:
            ValueError: a sequence is empty, or mask and ids differ in shape.
            UserError: a sequence is longer than the model's context.
        """
        layout = TokenLayout.of_batch(input_ids, attention_mask)
        x = self.encode(layout.pack(input_ids), layout)
        return {"last_hidden_state": layout.unpack(x), "last_token": layout.last(x)}

    def last_token(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """:meth:`forward`'s ``last_token`` alone, (B, T) -> (B, n_embd): what it does not need is not computed."""
        layout = TokenLayout.of_batch(input_ids, attention_mask)
        return self.encode(layout.pack(input_ids), layout, layout.last_index)

    def encode(self, input_ids: Tensor, layout: TokenLayout, wanted: Tensor | None = None) -> Tensor:
        """Packed token ids -> final hidden states.

        Args:
            input_ids: (N,) the ids.
            layout: which sequence each belongs to.
            wanted: (W,) the packed rows whose states are needed, each once; None means all. The last block's output map
                and MLP are computed for these alone.

        Returns:
            (N, n_embd), or (W, n_embd) in the order of ``wanted``.

        Raises:
            UserError: a sequence is longer than the model's context.
        """
        longest, start = layout.groups[-1][1], self.config.n_positions - self.max_tokens
        if longest > self.max_tokens:
            less = f" ({self.config.n_positions} positions, of which a prefix takes {start})" if start else ""
            raise UserError(
                f"a sequence of {longest} tokens is longer than the model's context of {self.max_tokens}{less}; "
                "cut it before the model sees it"
            )
        prefixes: list[KeyValue | None] = [None] * len(self.h) if self.prefix is None else [*self.prefix()]
        x = self.embed(input_ids, layout.position_ids + start if start else layout.position_ids)
        for block, prefix in zip(self.h, prefixes, strict=True):
            rows = wanted if block is self.h[-1] else None
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint_activations(block, x, layout, prefix, rows, use_reentrant=False)
            else:
                x = block(x, layout, prefix, rows)
        return self.ln_f(x)

    def extend(self, input_ids: Tensor, window: Window) -> Tensor:
        """Reads the next tokens of texts in a cache, whose keys and values it stores there.

        Args:
            input_ids: (B, T) token ids; any valid id where the window has no token.
            window: where they stand (``modules/cache.py``); no position may lie beyond the model's.

        Returns:
            (N, n_embd), the final hidden states of the window's tokens.
        """
        x = self.embed(window.pack(input_ids), window.pack(window.positions))
        for number, block in enumerate(self.h):
            assert isinstance(block, GPT2Layer)
            x = block.extend(x, window, number)
        return self.ln_f(x)

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Token plus position embeddings, with dropout: two equal shapes (...) -> (..., n_embd)."""
        return self.drop(self.wte(input_ids) + self.wpe(position_ids))

    def hidden_state_to_token(self, hidden_state: Tensor) -> Tensor:
        """Next-token logits by the tied embedding: (..., n_embd) -> (..., vocab_size)."""
        if self.unembedding is not None:
            return self.unembedding(hidden_state)
        return F.linear(hidden_state, self.wte.weight)

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters from the bottom up: ``embeddings``, ``block 0`` ... ``block L-1``, ``final norm``.

        Optimizer groups, freezing and layer-wise rates are all built from this list. An adapter's parameters are in
        their block; a model with a prefix has a group ``prefix`` before all others.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        if self.prefix is not None:
            groups["prefix"] = list(self.prefix.parameters())
        groups["embeddings"] = [*self.wte.parameters(), *self.wpe.parameters()]
        groups |= {f"block {i}": list(block.parameters()) for i, block in enumerate(self.h)}
        return groups | {"final norm": list(self.ln_f.parameters())}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "gpt2",
        d: int | None = None,
        l: int | None = None,  # noqa: E741
        num_heads: int | None = None,
    ) -> GPT2Model:
        """Loads a checkpoint in HuggingFace's layout, with the prefix that a run left beside it, for use.

        The architecture is read from its ``config.json``.

        Args:
            model: a folder, a bundled checkpoint (``mini``), or a name on the Hub (from the local cache first).
            d, l, num_heads: n_embd, n_layer and n_head as the CS 224N code passes them; only checked.

        Raises:
            UserError: the checkpoint can't be found or read, is not a GPT-2, or has other sizes than those given.
        """
        folder = find_checkpoint(str(model)).folder
        config = checkpoint.read_config(folder)
        expected = {"n_embd": d, "n_layer": l, "n_head": num_heads}
        problems = [
            f"{folder / 'config.json'}: {name} is {getattr(config, name)}, but {value} was asked for"
            for name, value in expected.items()
            if value is not None and value != getattr(config, name)
        ]
        if problems:
            raise UserError(problems)
        gpt2 = cls.empty(config)
        checkpoint.load_into(gpt2, folder)
        if (folder / PREFIX_FILE).exists():
            gpt2.prefix = checkpoint.load_prefix(folder / PREFIX_FILE, config)
        return gpt2.eval()

    @classmethod
    def empty(cls, config: GPT2Config) -> GPT2Model:
        """A model whose weights are about to be loaded: no time is spent on drawing random ones."""
        with torch.device("meta"):
            gpt2 = cls(config)
        return gpt2.to_empty(device="cpu").eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes ``config.json`` and ``model.safetensors``; ``transformers.GPT2LMHeadModel`` loads the folder.

        Adapters are merged into the weights; a prefix is written beside them (``prefix.safetensors``).
        """
        checkpoint.save_language_model(self, Path(folder), dtype)
