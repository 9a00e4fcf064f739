"""A corpus to pretrain on: Wikipedia dumps, plain text and JSON lines made into token shards.

python build_corpus.py --input viwiki-latest-pages-articles.xml.bz2 --output-dir corpora/vi --vocab-type unigram
python build_corpus.py --input wiki.xml.bz2 reviews.txt.xz=2 --output-dir corpora/en --exclude data/ids-sst-dev.csv
python build_corpus.py --documents corpora/en --output-dir corpora/en-16k --vocab-size 16384
python build_corpus.py --inspect corpora/en
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import AT_LEAST_ONE, GROUP_ORDER, POSITIVE, SHARE, RunFailed, UserError, setting
from storage import shown
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:  # imported where it is first needed, so that --help is quick
    from corpus.folder import CorpusFolder, Source
    from corpus.selection import Selection
    from corpus.vocabulary import Vocabulary

INPUT, CLEANING, SELECTION, VOCABULARY, RUN = "input", "documents", "selection", "vocabulary", GROUP_ORDER[-1]
EXAMPLES = """\
  python build_corpus.py --input kowiki-latest-pages-articles.xml.bz2 --output-dir corpora/ko --vocab-type unigram
  python build_corpus.py --input wiki.xml.bz2 reviews.txt.xz=2 --output-dir corpora/en --exclude data/*dev*.csv
  python build_corpus.py --documents corpora/en --output-dir corpora/en-16k --vocab-size 16384
  python build_corpus.py --inspect corpora/en"""


@dataclass(frozen=True)
class CorpusSettings:
    """The settings of a corpus."""

    input: list[str] = setting(
        [], "MediaWiki dumps, plain text or JSON lines; bz2, xz, gz, zst or not compressed. Each training document "
        "occurs WEIGHT times (default 1; 0.5: every second one)", group=INPUT, metavar="PATH[=WEIGHT]",
    )  # fmt: skip
    documents: str | None = setting(
        None, "take the extracted documents of this corpus, and its --exclude and shares unless they are given",
        group=INPUT, metavar="FOLDER",
    )  # fmt: skip

    document_separator: str = setting(
        "<|endoftext|>", "the line between two documents of a plain text; '' makes each file one document "
        "(default: <|endoftext|>)", group=CLEANING, metavar="LINE",
    )  # fmt: skip
    text_field: str = setting("text", "the field of JSON lines that holds the text", group=CLEANING, metavar="NAME")
    min_chars: int | None = setting(
        None, "shorter documents are left out (default: 200 for dumps; elsewhere only empty ones)", group=CLEANING,
        metavar="N", within=AT_LEAST_ONE,
    )  # fmt: skip
    page_seconds: float = setting(
        10.0,
        "a page that takes longer to clean is left out and listed",
        group=CLEANING,
        metavar="SECONDS",
        within=POSITIVE,
    )
    skip_damaged: bool = setting(
        False, "go on with what can be read of a damaged or cut-off source", group=CLEANING, identity=False
    )

    exclude: list[str] = setting(
        [], "evaluation files; a document that shares 13 words in a row with one of them is left out", group=SELECTION,
        metavar="FILE",
    )  # fmt: skip
    validation_share: float = setting(
        0.01, "share of the documents that are the validation split", group=SELECTION, metavar="SHARE", within=SHARE
    )
    test_share: float = setting(
        0.01, "share of the documents that are the test split", group=SELECTION, metavar="SHARE", within=SHARE
    )

    vocab_type: str = setting(
        "byte-level-bpe", "byte-level-bpe as GPT-2's, or unigram or bpe as SentencePiece's", group=VOCABULARY,
        choices=("byte-level-bpe", "unigram", "bpe"),
    )  # fmt: skip
    vocab_size: int = setting(8192, "tokens, special ones included", group=VOCABULARY, metavar="N", within=AT_LEAST_ONE)
    vocab_sample: float = setting(
        50.0, "MB of training text that the vocabulary is trained on", group=VOCABULARY, metavar="MB", within=POSITIVE
    )
    special_tokens: list[str] = setting(
        [], "task tokens: <summarize> <question> <answer> <classify> <nli>", group=VOCABULARY, metavar="<NAME>"
    )
    tokenizer: str | None = setting(
        None, "use this tokenizer: a folder, or a bundled model's name (mini)", group=VOCABULARY, metavar="FOLDER"
    )

    output_dir: str | None = setting(None, "the corpus folder", group=RUN, identity=False, metavar="FOLDER")
    shard_tokens: int = setting(100_000_000, "tokens in one shard", group=RUN, metavar="N", within=AT_LEAST_ONE)
    workers: int | None = setting(
        None, "processes (default: one per core)", group=RUN, identity=False, metavar="N", within=AT_LEAST_ONE
    )
    inspect: str | None = setting(
        None, "print statistics and samples of a finished corpus", group=RUN, identity=False, metavar="FOLDER"
    )
    overwrite: bool = setting(
        False, "start anew where the folder exists; documents are kept where their source is the same", group=RUN,
        identity=False,
    )  # fmt: skip
    dry_run: bool = setting(False, "check everything, print what would be done, and stop", group=RUN, identity=False)
    config: str | None = setting(
        None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE", identity=False
    )


@dataclass(frozen=True)
class Plan:
    """A corpus that can be built: everything that can be checked before is checked."""

    settings: CorpusSettings
    folder: CorpusFolder
    sources: list[Source]
    documents: Path  # where the extracted documents are or will be
    exclude: list[Path]
    notes: list[str]  # what the user should know of them
    reused: Vocabulary | None  # of --tokenizer
    identity: dict[str, Any]
    workers: int


def main(argv: Sequence[str]) -> int:
    parser = build_parser(CorpusSettings, "Builds a corpus of tokens to pretrain a GPT-2 on.", EXAMPLES)
    settings, given = parse_settings(CorpusSettings, parser, argv)
    if settings.inspect:
        problems = no_effect(given - {"inspect", "config"}, "--inspect")
        if problems:
            raise UserError(problems)
        from corpus.inspection import inspect

        inspect(Path(settings.inspect))
        return 0
    plan = make_plan(settings, given)
    for note in plan.notes:
        print(note, file=sys.stderr)
    if settings.dry_run:
        show_plan(plan)
        return 0
    return build(plan)


# ---------------------------------------------------------------------------------------------------------------------
# Checking
# ---------------------------------------------------------------------------------------------------------------------


def make_plan(settings: CorpusSettings, given: set[str]) -> Plan:
    """Checks the settings.

    Raises:
        UserError: all that is wrong with them.
    """
    from corpus import vocabulary
    from corpus.folder import CorpusFolder
    from corpus.parallel import available_cores
    from corpus.selection import evaluation_note
    from storage import check_folder, file_sha256

    problems: list[str] = []
    if not settings.output_dir:
        problems.append("--output-dir is missing; say where the corpus goes")
    else:
        try:
            check_folder(Path(settings.output_dir))
        except UserError as error:
            problems += error.problems
    if bool(settings.input) == bool(settings.documents):
        problems.append("give either --input or --documents")
    folder = CorpusFolder(Path(settings.output_dir or "."))
    documents = folder.documents
    shares = {"validation_share": settings.validation_share, "test_share": settings.test_share}
    exclude = [Path(path).resolve() for path in settings.exclude]
    cleaning: dict[str, Any] = {}  # of --documents
    sources: list[Source] = []
    if settings.documents and not settings.input:
        other = CorpusFolder(Path(settings.documents).resolve())
        documents = other.documents
        of_documents = {"document_separator", "text_field", "min_chars", "page_seconds"}
        problems += no_effect((of_documents | {"skip_damaged"}) & given, "--documents")
        if documents == folder.documents.resolve():
            problems.append("--documents and --output-dir are the same folder; choose another --output-dir")
        theirs = other.settings()
        if not theirs:
            problems.append(f"--documents {settings.documents}: is no corpus folder; it has no settings.json")
        else:
            sources = theirs["sources"]
            cleaning = {name: theirs["identity"][name] for name in of_documents}
            shares = {name: value if name in given else theirs["identity"][name] for name, value in shares.items()}
            if "exclude" not in given:
                exclude = [Path(path) for path in theirs["identity"]["exclude"]]
            again = "run its command again first" + (", with --overwrite" if other.is_complete else "")
            problems += [
                f"--documents {settings.documents}: {source.key} is not extracted yet, or files of it are gone; {again}"
                for source in sources
                if not is_extracted(documents / source.key)
            ]
    else:
        sources, more = check_inputs(settings.input)
        problems += more
    if "\n" in settings.document_separator:
        problems.append("--document-separator: must be one line")
    if sum(shares.values()) >= 1:
        problems.append(
            f"--validation-share and --test-share leave nothing to train on: {sum(shares.values()):g} in all"
        )
    checksums: dict[str, str] = {}
    notes: list[str] = []
    for path in exclude:
        try:
            notes.append(evaluation_note(path))
            checksums[str(path)] = file_sha256(path)
        except UserError as error:
            problems += [f"--exclude {problem}" for problem in error.problems]

    reused = None
    if settings.tokenizer:
        of_vocabulary = {"vocab_type", "vocab_size", "vocab_sample", "special_tokens"}
        problems += no_effect(of_vocabulary & given, "--tokenizer")
        try:
            reused = vocabulary.load(vocabulary.find(settings.tokenizer))
            vocabulary.refuse_forgeable(reused)
        except UserError as error:
            problems += error.problems
    else:
        problems += vocabulary.special_token_problems(settings.vocab_type, settings.special_tokens)
        smallest = vocabulary.smallest_size(settings.vocab_type, settings.special_tokens)
        if settings.vocab_size < smallest:
            problems.append(
                f"--vocab-size {settings.vocab_size}: must be at least {smallest}, "
                "what every such vocabulary has (special tokens, bytes, printable characters)"
            )
    if problems:
        raise UserError(problems)

    identity = {field.name: getattr(settings, field.name) for field in fields(settings) if field.metadata["identity"]}
    identity |= shares | cleaning
    identity |= {
        "input": [f"{source.path}={source.weight:g}" for source in sources],
        "documents": str(documents.parent) if settings.documents else None,
        "exclude": checksums,
        "tokenizer": file_sha256(reused.folder / "tokenizer.json") if reused else None,
    }
    if not settings.overwrite and folder.settings():
        folder.refuse_other_settings(identity)
        if folder.is_complete:
            refuse_changed_sources(folder, sources, documents, settings.documents is not None)
    notes = [note for note in notes if note]
    workers = settings.workers or available_cores()
    return Plan(settings, folder, sources, documents, exclude, notes, reused, identity, workers)


def refuse_changed_sources(folder: CorpusFolder, sources: list[Source], documents: Path, of_another: bool) -> None:
    """Compares what a finished corpus was built from with what is there now.

    Args:
        of_another: the documents are another corpus's; whether its sources have changed is told by its own command.

    Raises:
        UserError: naming each source that has changed.
    """
    from corpus.files import has_changed
    from corpus.shards import read_manifest

    manifest = read_manifest(folder.path)
    problems = []
    for source, built in zip(sources, manifest["sources"], strict=True):
        path = documents / source.key / "extraction.json"
        about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if of_another:
            path, changed = documents / source.key, about["sha256"] != built["sha256"]
        else:
            path = Path(source.path)
            changed = has_changed(path, about.get("fingerprint", {}), built["sha256"])
        if changed:
            when = f"{manifest['created']}, when {folder.path} was built"
            problems.append(f"{path}: has changed since {when}; --overwrite builds it anew")
    if problems:
        raise UserError(problems)


def no_effect(names: set[str], beside: str) -> list[str]:
    """Refuses settings that a flag overrides."""
    return [
        f"--{name.replace('_', '-')}: has no effect beside {beside}; leave one of them out" for name in sorted(names)
    ]


def is_extracted(folder: Path) -> bool:
    """Whether the documents of a source are all there."""
    from corpus.extraction import part_files

    try:
        return len(part_files(folder)) == json.loads((folder / "extraction.json").read_text(encoding="utf-8"))["parts"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_inputs(inputs: list[str]) -> tuple[list[Source], list[str]]:
    """The sources of ``--input``, and what is wrong with them."""
    from corpus.files import refuse_pipe
    from corpus.folder import name_sources

    paths: list[Path] = []
    weights: list[float] = []
    problems: list[str] = []
    for text in inputs:
        name, equals, number = text.rpartition("=")
        weight = 1.0
        if equals and not os.path.exists(text):  # noqa: PTH110
            try:
                weight = float(number)
            except ValueError:
                name = text
        else:
            name = text
        try:
            refuse_pipe(Path(name))
        except UserError as error:
            problems += error.problems
            continue
        path = Path(os.path.realpath(name))  # which does not raise where links lead in a circle
        if not 0 < weight <= 1000:
            problems.append(
                f"--input {text}: the weight must be greater than 0 and at most 1000; leave the file out instead"
            )
        if path in paths:
            problems.append(f"--input {text}: is given twice; raise its weight instead: {name}=2")
        paths.append(path)
        weights.append(weight)
        try:
            tell_format(path)
        except UserError as error:
            problems += error.problems
    return name_sources(paths, weights), problems


def tell_format(path: Path) -> tuple[str, str, int]:
    """Format, compression and size in bytes of a source.

    Raises:
        UserError: it can't be read, or is no format that is known.
    """
    from corpus.documents import HEAD_BYTES, read_header
    from corpus.files import SourceFile

    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where a name is too long)
        raise UserError(f"{path}: is a folder; give its files")
    with SourceFile(path) as file:
        return read_header(file.head(HEAD_BYTES), path).format, file.compression, file.size


def show_plan(plan: Plan) -> None:
    settings = plan.settings
    for source in plan.sources:
        if settings.documents:
            print(f"documents    {plan.documents / source.key}, weight {source.weight:g}")
        else:
            form, compression, size = tell_format(Path(source.path))
            about = f"{form}, compression {compression}, {size / 1e6:.1f} MB, weight {source.weight:g}"
            print(f"source       {source.path}: {about}")
    for path in plan.exclude:
        print(f"exclude      {path}")
    shares = f"{plan.identity['validation_share']:g} validation, {plan.identity['test_share']:g} test"
    print(f"splits       {shares}, the rest train")
    if plan.reused:
        print(
            f"tokenizer    {plan.reused.folder}, {plan.reused.vocab_size:,} tokens, end token {plan.reused.end_token}"
        )
    else:
        print(f"vocabulary   {settings.vocab_type}, {settings.vocab_size:,} tokens, from {settings.vocab_sample:g} MB")
    if settings.overwrite:
        state = "is built anew"
    else:
        state = "is complete" if plan.folder.is_complete else "goes on" if plan.folder.settings() else "is new"
    print(f"output       {plan.folder.path} ({state}), {plan.workers} processes")


# ---------------------------------------------------------------------------------------------------------------------
# Building
# ---------------------------------------------------------------------------------------------------------------------


def build(plan: Plan) -> int:
    """Builds the corpus, or what is missing of it."""
    from training.interrupt import Interrupted, Signals

    folder = plan.folder
    if folder.is_complete and not plan.settings.overwrite:
        from corpus.shards import read_manifest

        manifest = read_manifest(folder.path)
        folder.remove_working_files()  # a kill may have come between the manifest and this
        print(f"{folder.path}: is complete since {manifest['created']}; --overwrite builds it anew")
        show_summary(folder.path, manifest)
        return 0
    folder.lock()
    signals = Signals().install()
    try:
        with signals.deferred():
            if plan.settings.overwrite or not folder.settings():
                folder.begin(plan.identity, plan.sources)
            manifest = run_stages(plan, signals.check)
    except Interrupted as interrupted:
        message = "interrupted; what is finished is kept: run the same command again (without --overwrite) to go on"
        raise Interrupted(interrupted.signal_number, message) from None
    except OSError as error:
        raise RunFailed(
            f"{error.filename or folder.path}: could not be written or read ({error.strerror or error}); what is "
            "finished is kept: mend that (free some space if the disk is full) and run the same command again"
        ) from None
    finally:
        folder.unlock()
    show_summary(folder.path, manifest)
    return 0


def run_stages(plan: Plan, check: Callable[[], None]) -> dict[str, Any]:
    """Extraction, selection, vocabulary, tokens; every stage leaves out what is done already. Returns the manifest."""
    from corpus import vocabulary
    from corpus.extraction import part_files
    from corpus.selection import Part, describe, select
    from corpus.shards import SCHEMA, token_dtype
    from corpus.tokenization import assemble, tokenize
    from storage import file_sha256, write_json, write_text

    settings, folder = plan.settings, plan.folder
    extracted = extract_sources(plan, check)
    folder.keep_what_fits(extracted)

    parts = [
        Part(path, number, folder.selection / source.key / f"{path.name.split('.')[0]}.npy")
        for number, source in enumerate(plan.sources)
        for path in part_files(plan.documents / source.key)
    ]
    total = sum(part.path.stat().st_size for part in parts)
    with progress("selecting", total) as bar:
        describe(parts, plan.exclude, plan.workers, check, bar)
    shares = plan.identity["validation_share"], plan.identity["test_share"]
    selection = select(parts, [source.weight for source in plan.sources], *shares)
    write_text(folder.path / "excluded.tsv", "".join(part.excluded.read_text(encoding="utf-8") for part in parts))
    refuse_empty(plan, selection)

    if not (folder.tokenizer / "tokenizer.json").exists():
        make_vocabulary(plan, selection, check)
    words = vocabulary.load(folder.tokenizer)

    with progress("tokenizing", total) as bar:
        unknown = tokenize(selection, words, folder.token_parts, plan.workers, check, bar)
    if unknown:
        print(
            f"warning: {100 * unknown:.2g} % of the tokens stand for text that the tokenizer can't spell; it is lost",
            file=sys.stderr,
        )
    dtype = token_dtype(words.vocab_size)
    splits = assemble(selection, folder.token_parts, folder.tokens, dtype, settings.shard_tokens, check)

    facts = ("sha256", "format", "compression", "damaged")
    manifest = {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "vocab_size": words.vocab_size,
        "end_token": words.end_token,
        "end_token_id": words.end_token_id,
        "dtype": dtype,
        "splits": splits,
        "tokenizer": {
            "type": "given" if plan.reused else settings.vocab_type,
            "sha256": file_sha256(folder.tokenizer / "tokenizer.json"),
        },
        "sources": [
            vars(source) | {name: about[name] for name in facts} | {"counts": about["counts"] | selected}
            for source, about, selected in zip(plan.sources, extracted, selection.counts, strict=True)
        ],
        "settings": plan.identity,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("tokenizers", "numpy", "mwparserfromhell")},
        },
    }
    write_json(folder.manifest, manifest)
    folder.remove_working_files()
    return manifest


def extract_sources(plan: Plan, check: Callable[[], None]) -> list[dict[str, Any]]:
    """The documents of every source as clean text. Returns what each ``extraction.json`` holds."""
    from corpus.extraction import ExtractionSettings, extract

    if plan.settings.documents:
        return [
            json.loads((plan.documents / source.key / "extraction.json").read_text(encoding="utf-8"))
            for source in plan.sources
        ]
    settings = plan.settings
    how = ExtractionSettings(
        document_separator=settings.document_separator,
        text_field=settings.text_field,
        min_chars=settings.min_chars,
        page_seconds=settings.page_seconds,
        workers=plan.workers,
        skip_damaged=settings.skip_damaged,
    )
    done = []
    with progress("extracting", sum(Path(source.path).stat().st_size for source in plan.sources)) as bar:
        for source in plan.sources:
            bar.set_postfix_str(source.key)
            done.append(extract(Path(source.path), plan.documents / source.key, how, check, bar))
    return done


def refuse_empty(plan: Plan, selection: Selection) -> None:
    """Stops where there is nothing to train on.

    Raises:
        UserError: no document is left for the training split.
    """
    one = "all is one document, which is in one split as a whole; --document-separator LINE or several files cut it"
    if not selection.has_training_text:
        totals = {name: sum(counts[name] for counts in selection.counts) for name in selection.counts[0]}
        left_out = ", ".join(f"{name} {count:,}" for name, count in totals.items())
        lists = [plan.documents / source.key / "skipped.tsv" for source in plan.sources]
        skipped = next((path for path in lists if path.exists() and path.stat().st_size), None)
        remedy = "give more text" + "; see excluded.tsv for what was left out" * (totals["excluded"] > 0)
        if selection.is_one_document and not totals["excluded"]:
            remedy = one
        elif skipped is not None:
            *_, reason = skipped.read_text(encoding="utf-8").partition("\n")[0].split("\t")
            remedy = f"give more text; the first that was skipped: {reason}; all of them: {shown(skipped)}"
        if totals["train"]:
            remedy = "raise the weights, which leave out all of it"
        raise UserError(
            f"{', '.join(source.path for source in plan.sources)}: no document is left to train on "
            f"({left_out}); {remedy}"
        )
    for split in ("validation", "test"):
        if plan.identity[f"{split}_share"] and not sum(counts[split] for counts in selection.counts):
            remedy = one if selection.is_one_document else f"give more text, or raise --{split}-share"
            print(f"warning: no document fell into the {split} split; {remedy}")


def make_vocabulary(plan: Plan, selection: Selection, check: Callable[[], None]) -> None:
    """Trains the corpus's tokenizer, or takes the one that was given."""
    from corpus.parallel import call_in_process
    from corpus.tokenization import Sample
    from corpus.vocabulary import Training, copy_tokenizer, train_tokenizer

    settings, folder = plan.settings, plan.folder.tokenizer
    if plan.reused:
        print(f"taking the tokenizer of {plan.reused.folder}")
        call_in_process(copy_tokenizer, (plan.reused, folder), check)
        return
    print(f"training a {settings.vocab_type} vocabulary of {settings.vocab_size:,} tokens")
    sample = Sample(selection, settings.vocab_sample * 1e6)
    task = Training(sample, settings.vocab_type, settings.vocab_size, settings.special_tokens, folder, plan.workers)
    call_in_process(train_tokenizer, task, check)


def progress(what: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit="B", unit_scale=True, mininterval=0.5, leave=False, disable=None)


# ---------------------------------------------------------------------------------------------------------------------
# The summary
# ---------------------------------------------------------------------------------------------------------------------


def show_summary(folder: Path, manifest: dict[str, Any]) -> None:
    """What was read, what became of it, and what to do next."""
    counted = [source["counts"] for source in manifest["sources"]]
    columns = ["documents", "duplicates", "excluded", "tiny", "redirect", "broken"]
    others = ["namespace", "empty", "cut", "encoding", "timeout"]
    columns += [name for name in others if any(counts.get(name) for counts in counted)]
    print(f"\n{'source':<32}" + "".join(f"{name:>11}" for name in columns))
    for source in manifest["sources"]:
        counts = source["counts"]
        print(f"{source['key'][-32:]:<32}" + "".join(f"{counts.get(name, 0):>11,}" for name in columns))
        if source["damaged"]:
            print(f"  damaged places passed over: {len(source['damaged'])}; see its extraction.json")
    print(f"\n{'split':<12}{'documents':>12}{'tokens':>16}{'MB':>10}{'bytes/token':>13}{'shards':>8}")
    for name, split in manifest["splits"].items():
        documents, tokens, size = split["n_documents"], split["n_tokens"], split["utf8_bytes"]
        ratio = f"{size / (tokens - documents):.2f}" if tokens > documents else "-"
        print(f"{name:<12}{documents:>12,}{tokens:>16,}{size / 1e6:>10.1f}{ratio:>13}{len(split['shards']):>8}")
    kind, size = manifest["tokenizer"]["type"], manifest["vocab_size"]
    print(f"\nvocabulary   {kind}, {size:,} tokens, end token {manifest['end_token']}")
    print(f"corpus       {folder}: tokens/, tokenizer/, manifest.json; left out: documents/*/skipped.tsv, excluded.tsv")
    print(f"look         python build_corpus.py --inspect {folder}")
    print(f"next         python pretrain.py --corpus {folder} --size mini")


if __name__ == "__main__":
    sys.exit(run_script(lambda: main(sys.argv[1:])))
