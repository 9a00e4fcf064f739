"""Where a model comes from: a folder, a bundled checkpoint, the local HuggingFace cache, or the Hub."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path

from config import BUNDLED_CHECKPOINTS, UserError
from models.comparator import is_comparator
from models.files import PREFIX_FILE, WEIGHT_FILES, shard_names, weight_files

DEFAULT_MODELS = {"en": ("gpt2", "mini"), "ko": ("skt/kogpt2-base-v2", "ko-mini")}  # and the bundled one in its place
SECONDS_TO_REACH_HUB = 10.0
# What tokenizers that are no GPT-2's may consist of, where there is no tokenizer.json, and what some need beside that:
# a GPT-2's too, if it was saved as vocab.json and merges.txt after tokens were added to it.
OTHER_VOCABULARIES = ("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")
EXTRA_FILES = ("special_tokens_map.json", "added_tokens.json", PREFIX_FILE)  # that a checkpoint may have


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found.

    Attributes:
        name: what it is called in folder names and tables.
        folder: where its files are.
        requested: what the user asked for; None where nothing was.
        origin: "folder", "bundled", "cache" or "hub".
        note: what the user should be told, if anything.
    """

    name: str
    folder: Path
    requested: str | None
    origin: str
    note: str = ""


def find_model(name: str | None, language: str = "en") -> Checkpoint:
    """The model that ``--model`` names, or the language's default."""
    return find_checkpoint(name) if name else find_default_checkpoint(language)


def find_default_checkpoint(language: str = "en") -> Checkpoint:
    """The model of a run without ``--model``: ``gpt2`` or KoGPT-2, or a bundled one where that can't be had."""
    default, embedded = DEFAULT_MODELS[language]
    try:
        return dataclasses.replace(_from_hub(default), requested=None)  # a folder of that name is another model
    except UserError as error:
        reason = error.problems[0].removesuffix(".")
    bundled = _bundled(embedded)
    if bundled is None:
        raise UserError(f"neither {default} nor the bundled model can be had ({reason}); pass --model FOLDER")
    note = (
        f"{default} (124M) could not be had, so this run uses the bundled model {embedded}, which is far smaller and "
        f"weaker: {reason}"
    )
    return Checkpoint(embedded, bundled, requested=None, origin="bundled", note=note)


def find_checkpoint(name: str) -> Checkpoint:
    """Finds a named model; it is never replaced by another.

    Args:
        name: a folder, which may be a run's, the name of a bundled checkpoint, or a Hub id such as ``gpt2`` or
            ``skt/kogpt2-base-v2``.

    Raises:
        UserError: it can't be had, with the reason and what to do.
    """
    path = Path(name)
    if name.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError as error:
            raise UserError(f"{name}: {error}; give the folder's full path") from None
    if path.is_file():
        raise UserError(f"{name}: is a file; give the folder that it is in, with config.json and the tokenizer")
    if name and path.is_dir():
        of_run = (path / "best" / "config.json").is_file()
        folder = (path / "best" if of_run else path).resolve()
        is_bundled = folder.parent == BUNDLED_CHECKPOINTS.resolve()  # with its own defaults, by whichever name
        return Checkpoint(short_name(name), folder, name, "bundled" if is_bundled else "folder")
    bundled = _bundled(name)
    if bundled is not None:
        return Checkpoint(name, bundled, name, "bundled")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{name}: no such folder; give a folder with config.json and weights, or a Hub id")
    return _from_hub(name)


def short_name(name: str) -> str:
    """What a model is called: a folder by its last part, a run's ``best`` by the run's, a Hub id without its owner."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return name.split("/")[-1]
    path = path.resolve()
    return path.parent.name if path.name == "best" and path.parent.name else path.name


def _bundled(name: str) -> Path | None:
    folder = BUNDLED_CHECKPOINTS / name
    return folder if name and "/" not in name and (folder / "config.json").is_file() else None


def _from_hub(name: str) -> Checkpoint:
    """The local HuggingFace cache if the whole checkpoint is there, else a download into it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    short = name.split("/")[-1]
    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise UserError(f"{name}: neither a folder nor a valid Hub id") from None
    if isinstance(config, str) and _is_complete(Path(config).parent):
        return Checkpoint(short, Path(config).parent, name, "cache")
    folder = _reach_hub(name)
    _download_rest(name, folder)
    return Checkpoint(short, folder, name, "hub")


def _is_complete(folder: Path) -> bool:
    try:
        weight_files(folder)
    except UserError:
        return False
    if (folder / "tokenizer.json").exists() or all((folder / f).exists() for f in ("vocab.json", "merges.txt")):
        return True
    return is_comparator(folder) and any((folder / file).exists() for file in OTHER_VOCABULARIES)


def _reach_hub(name: str) -> Path:
    """Downloads ``config.json``, giving up on the Hub after :data:`SECONDS_TO_REACH_HUB`, and returns its folder.

    The wait is bounded from outside, in a thread of its own: the client's time limits hold per attempt, and it tries
    several times. So that a machine without a network does not wait that long, one plain request goes first.
    """
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url

    outcome: dict[str, str | Exception] = {}

    def attempt() -> None:
        try:
            # Its own limit lies behind the wait's, so that silence is always reported as such.
            get_session().head(hf_hub_url(name, "config.json"), timeout=2 * SECONDS_TO_REACH_HUB)
            outcome["path"] = hf_hub_download(name, "config.json", etag_timeout=SECONDS_TO_REACH_HUB / 2)
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_REACH_HUB)
    if "path" in outcome:
        return Path(str(outcome["path"])).parent
    raise UserError(_hub_problem(name, outcome.get("error")))


def _hub_problem(name: str, error: object) -> str:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    elsewhere = "copy the checkpoint to this machine and pass its folder with --model"
    if error is None:
        return f"{name}: the HuggingFace Hub did not answer within {SECONDS_TO_REACH_HUB:.0f} seconds; {elsewhere}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name}: the HuggingFace Hub has no such model, or it is private; check the name"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{name}: the model on the Hub has no config.json, so it is not a transformers checkpoint"
    return f"{name}: not in the local cache, and the HuggingFace Hub can't be reached; {elsewhere}"


def _download_rest(name: str, folder: Path) -> None:
    """Downloads tokenizer and weights into the cache, each whole or not at all; safetensors before pickles."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def fetch(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError as error:
            raise UserError(f"{name}: the download of {file} broke off ({error}); run the command again") from None
        except EntryNotFoundError:
            return None
        except Exception as error:
            raise UserError(f"{name}: the download of {file} failed ({error}); run the command again") from None

    comparator = is_comparator(folder)
    for file in EXTRA_FILES:
        fetch(file)
    if fetch("tokenizer.json") is None and not (comparator and any(map(fetch, OTHER_VOCABULARIES))):
        for file in ("vocab.json", "merges.txt"):
            if fetch(file) is None:
                raise UserError(f"{name}: the model on the Hub has no tokenizer ({file} is missing)")
    fetch("tokenizer_config.json")
    for file in WEIGHT_FILES:
        path = fetch(file)
        if path is None:
            continue
        if path.suffix == ".json":
            for shard in shard_names(path):
                if fetch(shard) is None:
                    raise UserError(f"{name}: the model on the Hub is not whole: {shard} is missing")
        return
    raise UserError(f"{name}: the model on the Hub has no weights; expected one of {', '.join(WEIGHT_FILES)}")
