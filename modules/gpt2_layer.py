"""One pre-norm transformer block, as GPT-2 has it (Radford et al. 2019, section 2.3)."""

from __future__ import annotations

from torch import Tensor, nn

from config import GPT2Config
from modules.attention import CausalSelfAttention, KeyValue
from modules.cache import Window
from modules.dropout import Dropout
from modules.layout import TokenLayout, take_rows


class MLP(nn.Module):
    """Two linear maps with the tanh form of GELU (Hendrycks & Gimpel 2016) between them."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner_dim)
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(config.inner_dim, config.n_embd)
        self.dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class GPT2Layer(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x))."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, layout: TokenLayout, prefix: KeyValue | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """(N, n_embd) packed tokens -> (N, n_embd), or of the ``wanted`` rows alone (W,), each once -> (W, n_embd).

        A prefix's key and value are (n_head, P, head_dim).
        """
        x = take_rows(x, wanted) + self.attn(self.ln_1(x), layout, prefix, wanted)
        return x + self.mlp(self.ln_2(x))

    def extend(self, x: Tensor, window: Window, block: int) -> Tensor:
        """The same for the next tokens of texts in a cache: (N, n_embd) -> (N, n_embd) in block ``block``."""
        x = x + self.attn.extend(self.ln_1(x), window, block)
        return x + self.mlp(self.ln_2(x))
