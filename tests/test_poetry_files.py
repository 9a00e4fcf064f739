"""Files of sonnets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config import UserError
from datasets import DataSource
from poetry.sonnets import (
    SONNETS,
    Sonnet,
    check_held_out,
    find_sonnets,
    format_sonnets,
    read_files,
    read_poems,
    read_sonnets,
    write_sonnets,
)

HEADER = "Sonnets\nby a poet\nCreated in 1609\n\n\n"
POEM = "The first line,\n  an indented one.\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(function, *args) -> list[str]:
    with pytest.raises(UserError) as caught:
        function(*args)
    return caught.value.problems


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_and_indentation_are_kept(tmp_path: Path, end: str) -> None:
    text = f"{HEADER}7\n\n{POEM}\n\nafter a gap \n 8 \nAnother.".replace("\n", end)
    poems = read_sonnets(write(tmp_path / "a.txt", text))
    assert poems == [Sonnet(7, ("The first line,", "  an indented one.", "after a gap")), Sonnet(8, ("Another.",))]
    assert poems[0].after(1).text == "an indented one.\nafter a gap"


def test_a_byte_order_mark_is_no_part_of_the_first_number(tmp_path: Path) -> None:
    assert read_sonnets(write(tmp_path / "a.txt", b"\xef\xbb\xbf1\nline\n")) == [Sonnet(1, ("line",))]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (HEADER + POEM, "", "has no numbered poems"),
        (f"{HEADER}1\n\n2\n{POEM}", ":6", "no poem after number 1"),
        (f"1\n{POEM}2\n", ":4", "no poem after number 2"),
        (f"1\n{POEM}1\n{POEM}", ":4", "number 1 again, after line 1"),
        (b"1\nfirst\nsec\xe9nd\n", ":3", "byte 0xe9 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    tmp_path: Path, content: str | bytes, line: str, said: str
) -> None:
    path = write(tmp_path / "a.txt", content)
    (problem,) = problems_of(read_sonnets, path)
    assert problem.startswith(f"{path}{line}: {said}")


def test_a_missing_file_is_a_users_mistake(tmp_path: Path) -> None:
    assert "can't be read" in problems_of(read_sonnets, tmp_path / "none.txt")[0]


def test_generated_files_have_the_courses_layout_and_read_back(tmp_path: Path) -> None:
    poems = [Sonnet(132, ("One,", "  two.")), Sonnet(133, ("Three.",))]
    text = format_sonnets(poems)
    assert text == "--Generated Sonnets-- \n\n\n132\nOne,\n  two.\n\n\n133\nThree.\n\n"
    write_sonnets(tmp_path / "out.txt", poems)
    assert (tmp_path / "out.txt").read_text() == text and read_sonnets(tmp_path / "out.txt") == poems


def test_poems_may_come_without_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "--Generated Sonnets-- \n\none\n  two\n \n\nthree\n")
    assert read_poems(path) == [Sonnet(1, ("one", "  two")), Sonnet(2, ("three",))]
    assert "holds no poem" in problems_of(read_poems, write(tmp_path / "b.txt", " \n"))[0]


def test_prompts_and_true_sonnets_must_belong_together() -> None:
    truth = [Sonnet(1, ("a", "b", "c", "d")), Sonnet(2, ("e", "f", "g", "h")), Sonnet(4, ("i",))]
    prompts = [Sonnet(1, ("a", " b", "c")), Sonnet(2, ("e", "x", "g")), Sonnet(3, ("y",))]
    problems = problems_of(check_held_out, Path("given.txt"), prompts, Path("true.txt"), truth)
    assert [problem.split(";")[0] for problem in problems] == [
        "given.txt: has no sonnet 4, which true.txt has",
        "true.txt: has no sonnet 3, which given.txt has",
        "true.txt: sonnet 2 begins otherwise than in given.txt",
    ]
    check_held_out(Path("given.txt"), prompts[:1], Path("true.txt"), truth[:1])


def test_a_folder_is_used_as_it_is_and_a_missing_truth_is_said(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write(tmp_path / SONNETS.files[split], f"{HEADER}1\n{POEM}")
    source = find_sonnets(tmp_path, root=tmp_path)
    assert set(source.paths) == {"train", "dev", "test"} and source.origin == "data-dir"
    assert any(SONNETS.files["truth"] in note for note in source.notes)
    (tmp_path / SONNETS.files["train"]).unlink()
    assert "no such file" in problems_of(lambda: find_sonnets(tmp_path, root=tmp_path))[0]


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    paths = {split: write(tmp_path / f"{split}.txt", "nothing\n") for split in ("train", "dev")}
    assert len(problems_of(read_files, DataSource("files", paths))) == 2


def test_the_published_files(shared: Path) -> None:
    files = read_files(find_sonnets(shared / "data" / "cs224n", root=shared))
    assert [poem.number for poem in files.train] == list(range(1, 132))
    assert [len(poem.lines) for poem in files.train].count(14) == 129
    assert sorted(note.split(": ")[1] for note in files.notes[:-1]) == [
        "sonnet 126 has 12 lines; it is kept",
        "sonnet 99 has 15 lines; it is kept",
    ]
    assert files.notes[-1].startswith("each held-out file has twelve sonnets")
    assert files.train[0].lines[0] == "From fairest creatures we desire increase,"
    assert files.train[0].lines[12] == "  Pity the world, or else this glutton be--"
    for poems, first in ((files.dev, 132), (files.truth, 132), (files.test, 145)):
        assert [poem.number for poem in poems] == list(range(first, first + 12))
    assert {len(poem.lines) for poem in files.truth} == {14}
    assert {len(poem.lines) for poem in files.dev + files.test} == {3}


def test_what_is_said_of_the_published_files_is_so(shared: Path) -> None:
    files = read_files(find_sonnets(shared / "data" / "cs224n", root=shared))
    dev, test = ({poem.number: "\n".join(poem.lines) for poem in poems} for poems in (files.dev, files.test))
    assert len(dev) == len(test) == 12
    assert test[155].count(",") == dev[138].count(",") + 2
    assert test[155].replace(",", "") == dev[138].replace(",", "")
    assert test[156].startswith("Two loves I have, of comfort and despair,")
    numbers = {poem.number for poem in (*files.train, *files.dev, *files.test)}
    assert numbers == set(range(1, 157)) - {144}


def test_the_hashes_are_those_of_the_published_files(shared: Path) -> None:
    from datasets import is_published

    source = find_sonnets(shared / "data" / "cs224n", root=shared)
    assert len(source.paths) == 4 and is_published(SONNETS, source)
    assert not is_published(replace(SONNETS, git_blobs={**SONNETS.git_blobs, "train": "0" * 40}), source)
