"""From flags to a run: which defaults hold, what the run's folder is called, and what it records of itself."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list

from config import ROOT, BaseSettings, EvaluateSettings, RunFailed, RunSettings, UserError
from datasets import DataSource
from models.sources import Checkpoint, short_name
from storage import check_folder, file_sha256, nearest_existing, shown
from strategies import choose_strategy
from training.device import Device, is_out_of_memory, open_device
from training.interrupt import Interrupted
from training.loop import Plan
from training.run_folder import RunFolder, settings_hash

S = TypeVar("S", bound=BaseSettings)
R = TypeVar("R", bound=RunSettings)
FREE_WHEN_RESUMED = ("use_gpu", "save_every", "show_examples", "dry_run", "overwrite")
RIVALS = {"layer_decay": "zone_rates", "zone_rates": "layer_decay"}  # who sets one wants no default of the other
LONGEST_MODEL = 120  # bytes of a model's name in that of a run's folder
RECORDED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "scikit-learn")


class Problems:
    """Gathers what is wrong, so that everything is reported at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.found.extend(error.problems)

    def raise_any(self) -> None:
        if self.found:
            raise UserError(list(dict.fromkeys(self.found)))  # two datasets can share a problem


def with_defaults(settings: S, given: set[str], *layers: Mapping[str, Any]) -> S:
    """Fills in what the user did not set, from the layers of defaults; later layers win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    unknown = set(merged) - {field.name for field in dataclasses.fields(settings)}
    if unknown:
        raise UserError(f"unknown settings among the defaults: {', '.join(sorted(unknown))}")
    taken = given | {rival for name, rival in RIVALS.items() if name in given and getattr(settings, name) is not None}
    return dataclasses.replace(settings, **{name: value for name, value in merged.items() if name not in taken})


def identity_of(settings: BaseSettings | EvaluateSettings) -> dict[str, Any]:
    """The settings that can change the results."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.metadata.get("identity")
    }


def run_name(
    task: str, dataset: str, model: str, strategy: str, settings: BaseSettings, defaults: BaseSettings,
    extra: Mapping[str, Any],
) -> str:  # fmt: skip
    """``<task>-<dataset>-<model>-<strategy>-s<seed>``, and a hash where anything differs from the defaults.

    Args:
        defaults: the settings as they are without any flag.
        extra: what else tells this run from the default one, such as the checksums of the user's own files.
    """
    usual = identity_of(defaults)
    in_name = {"strategy", "seed"}
    differences = {
        name: value for name, value in identity_of(settings).items() if name not in in_name and value != usual[name]
    }
    differences |= extra
    suffix = f"-{settings_hash(differences)}" if differences else ""
    if len(model.encode()) > LONGEST_MODEL:  # a file system takes names of 255 bytes
        short = model.encode()[:LONGEST_MODEL].decode(errors="ignore")
        model = f"{short}-{settings_hash({'model': model})}"
    return f"{task}-{dataset}-{model}-{strategy}-s{settings.seed}{suffix}"


def new_folder(
    task: str, dataset: str, model: str, settings: RunSettings, defaults: RunSettings,
    checkpoint: Checkpoint, record: Mapping[str, Any], own_files: Mapping[str, str],
) -> RunFolder:  # fmt: skip
    """The folder of a fine-tuning run that begins.

    Args:
        settings: with the name of the strategy.
        defaults: the settings as they are without any flag.
        record: what ``config.json`` will say of the model.
        own_files: checksums of the data, if they are the user's own files.
    """
    defaults = dataclasses.replace(defaults, random_init=settings.random_init)  # the model's name says it
    weights = {"weights": record["weights_sha256"]} if checkpoint.origin == "folder" else {}
    name = run_name(task, dataset, model, str(settings.strategy), settings, defaults, {**own_files, **weights})
    return RunFolder(Path(settings.output_dir or ROOT / "runs") / name)


def model_record(checkpoint: Checkpoint, to_train: bool = True) -> dict[str, Any]:
    """What ``config.json`` says of the model: requested, used, and which weights exactly.

    Args:
        to_train: whether it will be trained further, which no model with a prefix can be: the prefix would be lost.

    Raises:
        UserError: the weights can't be read, or can't be trained further.
    """
    from models.files import PREFIX_FILE, check_weights, weight_files

    check_weights(checkpoint.folder)
    files, prefix = weight_files(checkpoint.folder), checkpoint.folder / PREFIX_FILE
    if prefix.exists():
        if to_train:
            raise UserError(
                f"{prefix}: this model is a GPT-2 with a prefix, which can't be trained further here; give the model "
                "that its run began with, or one that was trained by another strategy"
            )
        files.append(prefix)
    return {
        "requested": checkpoint.requested,
        "used": checkpoint.name,
        "origin": checkpoint.origin,
        "folder": str(checkpoint.folder),
        "note": checkpoint.note,
        "weights_sha256": [file_sha256(path) for path in files],
    }


def begun_with(saved: Mapping[str, Any]) -> tuple[Checkpoint, DataSource]:
    """The model and the files that a run's ``config.json`` names: what it goes on with, whatever can be had today."""
    model, data = saved["model"], saved["data"]
    checkpoint = Checkpoint(model["used"], Path(model["folder"]), model["requested"], model["origin"], model["note"])
    paths = {name: Path(file["path"]) for name, file in data["files"].items()}
    return checkpoint, DataSource(data["origin"], paths, tuple(data["notes"]))


def saved_run(folder: RunFolder, task: str, flag: str) -> dict[str, Any]:
    """The ``config.json`` of a run of a task.

    Args:
        flag: what names the folder, with its value, for messages.

    Raises:
        UserError: it holds no run, or another task's.
    """
    if not folder.exists:
        raise UserError(f"{flag}: holds no run (no config.json); give the folder of one")
    saved: dict[str, Any] = folder.config()
    if "settings" not in saved:
        raise UserError(f"{flag}: is not the folder of a run; give the one that holds log.jsonl")
    if saved["task"] != task:
        raise UserError(f"{flag}: is a run of another task, {saved['task']}; use its script")
    return saved


def saved_settings(settings_class: type[S], folder: RunFolder, saved: Mapping[str, Any]) -> S:
    """The settings in a run's ``config.json``.

    Raises:
        UserError: it has settings that are unknown here.
    """
    unknown = saved["settings"].keys() - {field.name for field in dataclasses.fields(settings_class)}
    if unknown:
        raise UserError(
            f"{folder.path / 'config.json'}: another version of this project made the run, with settings that are "
            f"unknown here: {', '.join(sorted(unknown))}; use that version, or train anew"
        )
    return settings_class(**saved["settings"])


def named_run(path: str, task: str) -> RunFolder:
    """The finished run that ``--from-run`` names."""
    folder = RunFolder(Path(path))
    saved_run(folder, task, f"--from-run {path}")
    if not folder.is_complete:
        raise UserError(f"--from-run {path}: is no finished run (no metrics.json); finish it first")
    return folder


def finished_run(from_run: str | None, output_dir: str | None, task: str) -> RunFolder:
    """The run of ``--from-run``, or the task's run that was finished last."""
    if from_run is not None:
        return named_run(from_run, task)
    runs = Path(output_dir or ROOT / "runs")
    finished = sorted(runs.glob(f"{task}-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{runs}: holds no finished {task} run; train one, or name one with --from-run")
    return RunFolder(finished[-1].parent)


def resumed_settings(
    settings: R, given: set[str], folder: RunFolder, saved: Mapping[str, Any],
    free: tuple[str, ...] = FREE_WHEN_RESUMED,
) -> tuple[R, set[str]]:  # fmt: skip
    """``--resume FOLDER``: the run goes on with its own settings; flags may not contradict them.

    Args:
        saved: the run's ``config.json``.
        free: the settings that may be others than before.

    Returns:
        The run's settings, and the names of all, because none of them has a default any more.

    Raises:
        UserError: with everything that contradicts them.
    """
    own = dataclasses.replace(saved_settings(type(settings), folder, saved), overwrite=False)
    asked: dict[str, Any] = {name: value for name, value in identity_of(settings).items() if name in given}
    if given & {"strategy", "fine_tune_mode"}:
        mode = getattr(settings, "fine_tune_mode", None)
        asked["strategy"] = choose_strategy(settings.strategy, mode, saved["task"]).name
    if "model" in given:
        asked["model"] = short_name(str(settings.model))
    dataset = getattr(settings, "dataset", None)
    if "dataset" in given and dataset != getattr(own, "dataset", None):
        asked["dataset"] = " ".join(dataset) if isinstance(dataset, list) else dataset
    problems = Problems()
    with problems.collect():
        folder.refuse_other_run(asked, resumed=True)
    if "output_dir" in given and Path(str(settings.output_dir)).resolve() != folder.path.resolve().parent:
        problems.found.append(f"--output-dir {settings.output_dir}: {folder.path} is not in there; leave it out")
    problems.raise_any()
    own = dataclasses.replace(own, **{name: getattr(settings, name) for name in free if name in given})
    return own, {field.name for field in dataclasses.fields(own)}


def environment_record(device: Device) -> dict[str, Any]:
    """Versions, machine and source code of this run."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in RECORDED_PACKAGES},
        "platform": platform.platform(),
        "device": device.description,
        "precision": device.precision,
        "threads": torch.get_num_threads(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "argv": sys.argv,
        "started": now(),
    }


def carry_out(
    folder: RunFolder,
    settings: BaseSettings,
    script: str,
    title: str,
    *,
    describe: Callable[[Device], None],
    start: Callable[[Device], None],
    work: Callable[[Device], None],
    show: Callable[[dict[str, Any]], None],
    can_shard: bool = False,
) -> None:
    """What every run goes through: an interrupted one goes on, and a complete one is only shown.

    Args:
        script: the file name of the run's script, for the command that resumes it.
        title: what the run is, for the screen.
        describe: says what is about to happen, without loading a weight; ``--dry-run`` stops behind it.
        start: makes the folder ready, in the first process, which has locked it.
        work: does the rest, in all processes, and leaves ``metrics.json``.
        show: prints its results.
        can_shard: whether the model can be sharded (FSDP).

    Raises:
        Interrupted: the user, or the system, asked to stop; it says how to go on.
        RunFailed: the run could not be finished.
    """

    def show_complete() -> None:
        folder.drop_state()  # a kill may have come before
        metrics = folder.metrics()
        print(f"{title}: complete since {metrics['finished']}; --overwrite starts anew")
        show(metrics)

    if folder.is_complete and not settings.overwrite:
        if not int(os.environ.get("RANK", 0)):  # of several processes the first shows it
            show_complete()
        return
    goes_on = folder.exists and not settings.overwrite
    began_in = folder.config().get("environment", {}).get("precision") if goes_on else None
    device = open_device(settings.use_gpu, settings.precision, can_shard, began_in)
    check_folder(folder.path)
    describe(device)
    if settings.dry_run:
        device.say("dry run: everything is in order; nothing was trained, and no run folder was made")
        return
    if device.is_main:
        folder.lock()
        if folder.is_complete and not settings.overwrite:  # by now
            show_complete()
        else:
            with folder.writing():
                start(device)
    complete = [folder.is_complete]
    broadcast_object_list(complete)
    if complete[0]:
        return
    try:
        work(device)
    except Interrupted as interrupted:
        command = shlex.join(["python", shown(ROOT / script), "--resume", shown(folder.path)])
        # The same command again, with --overwrite, would delete what was saved.
        again = "" if settings.overwrite else ", run the same command again, or"
        message = f"{interrupted.message}; to go on{again}: {command}"
        raise Interrupted(interrupted.signal_number, message) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        remedy = "use a smaller --batch-size, or a device with more of it (without --use-gpu the CPU)"
        text = f"the run does not fit the device's memory; {remedy}"
        folder.fail(text)
        raise RunFailed(text) from None
    if device.is_main and folder.is_complete:
        show(folder.metrics())


def plan_of(settings: RunSettings, epochs: int | None, seed: int) -> Plan:
    """How long and in which portions a fine-tuning run trains."""
    assert epochs is not None and settings.batch_size is not None
    return Plan(
        epochs=epochs,
        batch_size=settings.batch_size,
        update_size=settings.batch_size * settings.accumulate,
        max_grad_norm=settings.max_grad_norm,
        patience=settings.patience,
        seed=seed,
        save_every_minutes=settings.save_every,
    )


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check_copies(settings: RunSettings) -> None:
    """Refuses a run whose predictions will be copied to the shared folder, where that can't be written to."""
    if settings.output_dir is None:
        check_folder(ROOT / "predictions", "mend that, or give an --output-dir: then nothing is copied there")


def check_disk_space(folder: Path, total_parameters: int, trainable_parameters: int) -> None:
    """Refuses a run whose best model and saved states would not fit on the disk.

    The best model is there twice while it is replaced; so is the state, three numbers per trainable parameter.

    Raises:
        UserError: with the space that is needed and that is free.
    """
    needed = 4 * (2 * total_parameters + 2 * 3 * trainable_parameters) + 50_000_000
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise UserError(
            f"{folder}: the run needs about {needed / 1e9:.1f} GB on disk and {free / 1e9:.1f} GB are free; "
            "free some, or choose another --output-dir"
        )


def group_table(groups: list[dict[str, Any]], frozen: int) -> str:
    """The optimizer's groups as the user sees them: consecutive blocks with the same rate share a row."""
    rows: list[list[Any]] = []
    for group in groups:
        name = group["name"].split(" (")[0]
        count = sum(parameter.numel() for parameter in group["params"])
        decay = group["weight_decay"]
        if rows and rows[-1][0][-1] == name:
            rows[-1][1] += count
            rows[-1][3] = max(rows[-1][3], decay)
        elif rows and name.startswith("block") and rows[-1][0][-1].startswith("block") and rows[-1][2] == group["lr"]:
            rows[-1][0].append(name)
            rows[-1][1] += count
        else:
            rows.append([[name], count, group["lr"], decay])
    lines = [f"  {'trains':<16}{'parameters':>14}{'rate':>12}{'decay':>8}"]
    for names, count, rate, decay in rows:
        label = names[0] if len(names) == 1 else f"blocks {names[0].split()[1]}-{names[-1].split()[1]}"
        lines.append(f"  {label:<16}{count:>14,}{rate:>12.3g}{decay:>8.3g}")
    if frozen:
        lines.append(f"  {'(frozen)':<16}{frozen:>14,}")
    if any(decay for *_, decay in rows):
        lines.append("  biases and norms of these have no decay")
    return "\n".join(lines)
