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


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Let x&lt;y be.\n\nSecond.\n\nThird a > b.", "Let x<y be.\n\nSecond.\n\nThird a > b."),
        ("Let x<y be.\n\nSecond.\n\nThird a > b.", "Let x<y be.\n\nSecond.\n\nThird a > b."),
        ("If a&lt;b and the other c&gt;d then.", "If a<b and the other c>d then."),
        ("The digraphs &lt;ch&gt; and <sh> are one sound", "The digraphs <ch> and <sh> are one sound"),
        ("Mail to <bob@example.org> now", "Mail to <bob@example.org> now"),
        ("a <nowiki><ref></nowiki> is a tag.", "a <ref> is a tag."),
        ("text</small> and <div class='x'>more", "text and more"),
        ("one <SMALL>two <phonos file='x'/>three", "one two three"),
    ],
)
def test_angle_brackets_that_are_no_tags_stay(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[[File:A.jpg|thumb|caption with [[a]] unclosed\n\nProse.", "Prose."),
        ("before [[Tập tin:A.jpg|nhỏ|chú thích [[a]] mở\nProse.", "before\nProse."),
        ("[[Hình:A b.JPG|nhỏ|chú thích [[a]] mở\nProse.", "Prose."),
        ("[[Category:Foo]\n[[ thể_loại : Foo\nProse.", "Prose."),
        ("[[Thể_loại:Y]] a [[thể  loại:Y|z]] b [[Tập_tin:A]] c [[\u200eCategory:X]]", "a b c"),
        ("[[分类:中国城市]] [[分類:x]] [[カテゴリ:日本]] [[분류:한국]] [[Kategorie:X|y]] x", "x"),
        ("[[:File:A.jpg|a name]] [[a: b|c]] [[category theory", "a name c category theory"),
    ],
)
def test_files_and_categories_go_in_any_spelling(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'''!Kung''' are a people.\n\n!Xóõ is a language", "!Kung are a people.\n\n!Xóõ is a language"),
        ("'''!!!''' is a band", "!!! is a band"),
        ("Absolute\n|x| is at least 0", "Absolute\n|x| is at least 0"),
        ("a\n{| class=x\n!b\n|c\n== D ==\n!Xóõ", "a\n\nD\n\n!Xóõ"),
        ("{{Col-begin}}\n|-\n| a\n|b\n|c || d\n! d\n!e !! f\n|}\nprose", "prose"),
        ("{{Infobox\n| a = b\n|c=[[d]]\n\nProse", "Infobox\n\nProse"),
    ],
)
def test_only_rows_of_tables_go(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("4-{2-[4-chlorophenyl]ethyl}-1,4-dihydro", "4-{2-[4-chlorophenyl]ethyl}-1,4-dihydro"),
        ("-{zh-hans|简}- -{zh;zh-hans;zh-hant|壹}- -{R|原}-", "简 壹 原"),
        ("x-{H|zh-cn:a;zh-tw:b}-y-{-|zh-cn:a}-z-{zh-cn:甲;zh-tw:乙}-", "xyz甲"),
        ("Pregledač -{Mozilla Firefox}- je", "Pregledač Mozilla Firefox je"),
    ],
)
def test_language_variants(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("about {{convert|944735|km2|sqmi|abbr=on}} of it", "about 944,735 km2 of it"),
        ("{{convert|5|to|10|km}}, {{Convert|3|-|4.5|mi|km}}", "5 to 10 km, 3–4.5 mi"),
        ("{{cvt|22|e6acre|km2}} and {{convert|5}}", "22 million acre and 5"),
        ("{{convert|9|to|12|C|F}} on {{convert|3e3|e3sqmi|km2}}", "9 to 12 °C on 3e3 thousand sq mi"),
        ("he is {{convert|6|ft|2|in|m}} tall, {{convert|2413|ft|0}} up", "he is 6 ft 2 in tall, 2,413 ft up"),
        ("{{Nihongo|'''Aikido'''|合気道|Aikidō|lead=yes}} is, {{nihongo||柔}} too", "Aikido (合気道) is, 柔 too"),
        ("{{chem|H|2|O}}, x{{sub|1}}, {{sup|a}}, {{angbr|b}}", "H2O, x1, a, ⟨b⟩"),
        ("{{val|1.5|(7)}}, {{val|1.5|0.1}}, {{val|6.2|e=18|u=C}}", "1.5(7), 1.5 ± 0.1, 6.2×10^18 C"),
        ("{{As of|2010}}, x was; y is {{as of|2014|lc=y}}.", "As of 2010, x was; y is as of 2014."),
        ("He said:{{quote|Let ''it'' be.<ref>x</ref>|Someone}}after", "He said:\nLet it be.\nafter"),
        ("{{blockquote|1=a=b}}{{cquote|text=c}}", "a=b\n\nc"),
        ("''A''{{'s}} b and ''C''{{'}} {{ndash}} d{{snd}}e", "A's b and C' – d – e"),
        ("{{formatnum: 12345}} {{nowrap|1=x=y}} {{lang|fr|2=z}} {{unknown|a}}", "12345 x=y z"),
        ("Call <code>main()</code> or <CODE>f(x)</CODE>, not <code>a\nb</code>.", "Call main() or f(x), not."),
    ],
)
def test_templates_within_a_sentence_show_their_text(source: str, expected: str) -> None:
    assert prose(source, HEADER) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("''A Modest Proposal'''s satire", "A Modest Proposal's satire"),
        ("''A'''s and '''B''' and ''C''\n''D'''s", "A's and B and C\nD's"),
        ("L'''Avenir'' and the ''Globe''", "L'Avenir and the Globe"),
        ("''A''<nowiki/>'s b", "A's b"),
        ("write <nowiki>''x'' [[y]] {{z}}</nowiki> and &#91;[a]&#93;", "write ''x'' [[y]] {{z}} and [[a]]"),
        ("call main() and a[] but no ( ) and x [], 서울()은", "call main() and a[] but no and x, 서울은"),
    ],
)
def test_apostrophes_and_brackets_that_are_no_markup_stay(source: str, expected: str) -> None:
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


@pytest.mark.parametrize(
    "text",
    [
        "#REDIRECT [[France]] {{R from x}}",
        "#redirect:[[France#Paris|x]] because",
        "#ĐỔI [[Đích]] [[Thể loại:X]]",
        "\n#ĐỔI[[Đích]]\n\nother text",
    ],
)
def test_redirects_without_their_element(text: str) -> None:
    with pytest.raises(LeftOut, match="redirect"):
        document("<ns>0</ns>", text)


def test_a_list_of_links_is_no_redirect() -> None:
    text = document("<ns>0</ns>", "#Paris: [[France]] city\n#London, [[England]]")["text"]
    assert text == "T & U\n\nParis: France city\nLondon, England"


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
