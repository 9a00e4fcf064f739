"""Fixtures that several test files share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# Nothing may reach the network or the user's cache; the tests of the Hub start processes with settings of their own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "no-huggingface-cache-here")

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "bos_token_id": 60}
TINY |= {"eos_token_id": 60, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.fixture
def shared() -> Path:
    """The folder of development material beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the development material in ../shared is not here")
    return SHARED


@pytest.fixture
def make_reference() -> Callable[..., Any]:
    """Makes a transformers GPT-2 with random weights, biases and norms included, from changes to a tiny config."""

    def make(head: str = "GPT2LMHeadModel", seed: int = 0, **changes: Any) -> Any:
        import transformers

        torch.manual_seed(seed)
        config = transformers.GPT2Config(**(TINY | changes), attn_implementation="eager")
        model = getattr(transformers, head)(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        return model

    return make


@pytest.fixture
def tiny_folder(tmp_path: Path, make_reference: Callable[..., Any]) -> Path:
    """A whole tiny checkpoint, as transformers writes it."""
    folder = tmp_path / "tiny"
    make_reference().save_pretrained(folder)
    return folder


@pytest.fixture
def deterministic() -> Iterator[None]:
    """The setting that runs on the CPU are made with."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs on a tiny checkpoint
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a tokenizer, dropout 0.1 everywhere, as this project saves it."""
    from tiny_run import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def still_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without any dropout."""
    from tiny_run import make_checkpoint

    folder = tmp_path_factory.mktemp("models") / "still"
    return make_checkpoint(folder, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_run import make_data

    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder to pretrain on: about 6,000 tokens, a byte-level vocabulary of 300."""
    from tiny_corpus import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpora") / "tiny")


@pytest.fixture
def as_new_process() -> Iterator[None]:
    """Takes back what a script sets for its whole process, before and after."""
    import signal

    from accelerate.state import AcceleratorState

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    was_deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)  # threads only wait for each other where the model is tiny
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.use_deterministic_algorithms(was_deterministic)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], as_new_process: None) -> Callable[[str], Callable[..., Any]]:
    """A script's name -> what calls it in this process: flags -> exit code and what was printed."""
    from accelerate.state import AcceleratorState
    from tiny_run import Result, call

    def named(name: str) -> Callable[..., Result]:
        def start(*argv: object) -> Result:
            AcceleratorState._reset_state(reset_partial_state=True)  # the last call's precision, perhaps another
            capsys.readouterr()
            code = call(*argv, script=name)
            captured = capsys.readouterr()
            return Result(code, captured.out, captured.err)

        return start

    return named


@pytest.fixture
def run(script: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Calls classifier.py."""
    return script("classifier")


@pytest.fixture
def paraphrase(script: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Calls paraphrase_detection.py."""
    return script("paraphrase_detection")


@pytest.fixture
def sonnets(script: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Calls sonnet_generation.py."""
    return script("sonnet_generation")


@pytest.fixture
def pretrain(script: Callable[[str], Callable[..., Any]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls pretrain.py. The device's peak is not measured."""
    from training.language_models import pretraining

    monkeypatch.setattr(pretraining, "measure_matmul_peak", lambda device: 1e11)
    return script("pretrain")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Models as small as the tests' only lose by a second thread, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
