"""Wikitext as clean prose."""

from __future__ import annotations

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from corpus.documents import Header, LeftOut, Unreadable, read_header, read_pages
from corpus.wikitext import page_document, prose

HEADER = Header("dump", file_names=("file", "image", "media", "tập tin"), category_names=("category", "thể loại"))


def document(inside: str, text: str = "prose " * 50, min_chars: int = 10) -> dict[str, str]:
    page = f"<page><title>T &amp; U</title>{inside}<revision><text>{escape(text)}</text></revision></page>"
    return page_document(page.encode(), HEADER, min_chars)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'''Bold''', ''italic'', '''''both''''' and l''''eau'''", "Bold, italic, both and l'eau"),
        ("before {{a|{{b|c}}|d={{e}}}} after", "before after"),
        ("Paris ({{lang-fr|x}}; {{IPA|y}}) is", "Paris is"),
        ("Athens ({{lang-el|x}}, born 1 {{small|April}})", "Athens (born 1 April)"),
        ("{{lang|grc|ἀρχή}} means beginning", "ἀρχή means beginning"),
        ("one<ref name=x>{{cite|a}} text</ref> two<ref name=x/> three<ref>no end", "one two three"),
        ("one<!-- two --> three<!-- four", "one three"),
        ("x<math>y^2</math> z", "x z"),
        ("a\n{| class=x\n! h\n|-\n| b {{c}}\n{|\n| d\n|}\n|}\ne", "a\n\ne"),
        ("a\n{|\n| never closed\n|-\n| [[b]]\n\nc", "a\n\nc"),
        ("<table><tr><td>x</td></tr></table>after", "after"),
        ("[[Target]] [[Target|text]] [[a#b|c]]", "Target text c"),
        ("[[Image:A.jpg|thumb|200px|A ''caption'' with [[a link|its text]]]]after", "after"),
        ("[[Tập tin:A.jpg|nhỏ|x]]after [[Hình:B.PNG|nhỏ|x]]", "after"),
        ("after[[Category:X]] [[thể loại:Y|z]]\n[[fr:Z]]\n[[zh-yue:Z]]", "after"),
        ("see [[:Category:X]] and [[:fr:Z|this]]", "see Category:X and this"),
        ("[http://a.org Its title], [http://b.org] and http://c.org/d?e", "Its title, and"),
        ("* one\n** two\n# three\n: four\n; five", "one\ntwo\nthree\nfour\nfive"),
        ("* one\n* {{cite}}\n* two", "one\ntwo"),
        ("a&nbsp;b &ndash; c&lt;d [[e&nbsp;f]]", "a b – c<d e f"),
        ("__TOC__ a __KHÔNGMỤCLỤC__ b __init__", "a b __init__"),
        ("a<br />b<small>c</small><span style='x'>d</span>", "a\nbcd"),
        ("a\n\n\n\n{{x}}\n\nb\nc", "a\n\nb\nc"),
        ("-{zh-hans:计算机; zh-hant:電腦}- 和 -{软件}-", "计算机 和 软件"),
        ("x }} y ]] z {{ w [[ v |} u", "x y z w v u"),
        ("{{{1|}}}\n----\n…", ""),
    ],
)
def test_markup_becomes_prose(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


def test_headings_stand_alone_and_not_without_text() -> None:
    source = (
        "Intro.\n== ''A'' {{x}} ==\n=== B ===\nText.\n=== C ===\n{{x}}\n== See also ==\n* {{y}}\n== D ==\nEnd.\n== E =="
    )
    assert prose(source, HEADER) == "Intro.\n\nA\n\nB\n\nText.\n\nD\n\nEnd."
    assert prose("== A ==\n\n\nText.", HEADER) == "A\n\nText."


def test_a_page_is_its_title_and_its_prose() -> None:
    assert document("<ns>0</ns>", "Some ''good'' prose.") == {"text": "T & U\n\nSome good prose.", "title": "T & U"}


@pytest.mark.parametrize(
    ("inside", "text", "kind"),
    [
        ('<ns>0</ns><redirect title="x"/>', "anything " * 5, "redirect"),
        ("<ns>0</ns>", "#ĐỔI [[Đích]]", "redirect"),
        ("<ns>14</ns>", "anything " * 5, "namespace"),
        ("<ns>0</ns>", "short", "tiny"),
        ("<ns>0</ns>", "{{only|a template}}", "empty"),
    ],
)
def test_pages_that_are_left_out(inside: str, text: str, kind: str) -> None:
    with pytest.raises(LeftOut) as left_out:
        document(inside, text)
    assert left_out.value.kind == kind


def test_scripts_are_no_articles() -> None:
    page = b"<page><ns>0</ns><revision><model>css</model><text>a long text of css</text></revision></page>"
    with pytest.raises(LeftOut, match="namespace"):
        page_document(page, HEADER, 1)


@pytest.mark.parametrize(
    ("raw", "kind", "reason"),
    [
        (b"<page><title>x</page>", "broken", "not XML"),
        (b"<page><title>\xff</title></page>", "encoding", "not UTF-8 .byte 0xff"),
    ],
)
def test_broken_pages(raw: bytes, kind: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as unreadable:
        page_document(raw, HEADER, 1)
    assert unreadable.value.kind == kind


@pytest.mark.parametrize("name", ["enwiki-latest", "enwiki-table", "viwiki"])
def test_no_markup_is_left_in_real_pages(shared: Path, name: str) -> None:
    (path,) = (shared / "wiki").glob(f"{name}*")
    data = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    header = read_header(data[: 256 << 10], path)
    count = 0
    for record in list(read_pages(iter([data]), header.closed))[:60]:
        try:
            text = page_document(record.raw, header, 200)["text"]
        except LeftOut:
            continue
        count += 1
        for markup in (
            "{{",
            "}}",
            "[[",
            "]]",
            "{|",
            "|}",
            "<ref",
            "thumb|",
            "''",
            "&nbsp;",
            "\n\n\n",
            "  ",
            "()",
            "( )",
        ):
            assert markup not in text, (text.split("\n")[0], markup)
    assert count >= 3
