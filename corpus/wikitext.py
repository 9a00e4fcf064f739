"""One page of a MediaWiki dump -> its title and clean prose, or why it is left out.

``mwparserfromhell`` makes a tree of the wikitext; what a reader sees as running text is kept. Real pages are never
quite well-formed, so what the parser had to leave as plain text is swept out afterwards, line by line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell import nodes

from corpus.documents import Header, LeftOut, Unreadable

# Elements whose content is no prose. Tables come as "table" too, whether written {| |} or in HTML.
DROPPED_TAGS = frozenset(
    (
        "ref", "references", "math", "chem", "ce", "gallery", "timeline", "table", "tr", "td", "th", "source",
        "syntaxhighlight", "pre", "score", "imagemap", "hiero", "graph", "mapframe", "maplink", "templatestyles",
        "templatedata", "style", "script", "includeonly", "inputbox", "categorytree", "indicator", "section",
    )
)  # fmt: skip
LINE_TAGS = frozenset(("br", "p", "div", "blockquote", "poem", "center", "li", "dd", "dt", "hr", "ul", "ol", "dl"))
# Templates that stand for a part of a sentence; without it, the sentence would be broken. They show their last value,
# all one after the other, the first as a block, a character of their own, or what _VALUES makes of their values.
LAST_VALUE = frozenset(("lang", "transl", "transliteration", "nowrap", "nobr", "small", "langue"))
JOINED_VALUES = frozenset(("chem", "chem2", "sub", "sup"))
QUOTATIONS = frozenset(("quote", "blockquote", "cquote"))
CHARACTERS = {
    "'": "'", "'s": "'s", "ndash": "–", "mdash": "—", "snd": " – ", "snds": " – ", "spnd": " – ", "spaced ndash": " – ",
}  # fmt: skip
RANGES = {
    "to": " to ", "to(-)": " to ", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × ", "xx": " × ",
    "-": "–", "–": "–", "+/-": " ± ", "±": " ± ",
}  # fmt: skip
UNITS = {
    "C": "°C", "F": "°F", "C-change": "°C", "F-change": "°F", "sqmi": "sq mi", "sqft": "sq ft", "cuft": "cu ft",
    "oilbbl": "bbl", "USgal": "gal", "impgal": "gal",
}  # fmt: skip
DOUBLE_UNITS = frozenset((("ft", "in"), ("st", "lb"), ("lb", "oz"), ("mi", "yd")))
POWERS = {"e3": "thousand ", "e6": "million ", "e9": "billion "}
# Links to files are known by these too: dumps don't name the older local names of their namespace ("Bild:", "Hình:").
MEDIA_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".svg", ".gif", ".tif", ".tiff", ".webp", ".ogg", ".oga", ".ogv", ".webm", ".mp3", ".mp4",
    ".wav", ".pdf", ".djvu",
)  # fmt: skip
# Dumps don't name every local name of the namespace of categories either: these are those of large Wikipedias.
CATEGORY_NAMES = frozenset(
    (
        "categoria", "categorie", "categoría", "catégorie", "kategoria", "kategorie", "kategori", "kategoriya",
        "kategorio", "kategorija", "kategória", "kateqoriya", "luokka", "thể loại", "категория", "категорія",
        "категорија", "κατηγορία", "կատեգորիա", "קטגוריה", "تصنيف", "رده", "زمرہ", "श्रेणी", "বিষয়শ্রেণী", "பகுப்பு",
        "หมวดหมู่", "カテゴリ", "分类", "分類", "분류",
    )
)  # fmt: skip
# What else in angle brackets is a tag, of HTML or of MediaWiki's extensions, where no pair of it was found.
TAGS = DROPPED_TAGS | LINE_TAGS | frozenset(
    (
        "abbr", "b", "bdi", "bdo", "big", "caption", "cite", "code", "col", "colgroup", "data", "del", "dfn", "em",
        "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "i", "img", "ins", "kbd", "langconvert", "link",
        "mark", "meta", "noinclude", "nowiki", "onlyinclude", "phonos", "q", "rb", "rp", "rt", "rtc", "ruby", "s",
        "samp", "small", "span", "strike", "strong", "sub", "sup", "tbody", "tfoot", "thead", "time", "translate", "tt",
        "tvar", "u", "var", "wbr",
    )
)  # fmt: skip
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))  # joiners are kept: some scripts need them
HEADING = "\x00"  # begins a line that is a heading, as often as the heading's level; XML can't hold this character
LITERAL = {ord(shown): chr(mark) for mark, shown in enumerate("<>'[]{}", 1)}  # shown as such: kept apart from markup
APART = "\x08"  # stands between two characters that are no markup together

# Without a word that is known in all languages, text behind the link on its line says that it is no redirect.
_REDIRECT = re.compile(
    r"\s*#(?:redirect\s*:?\s*\[\[|[^\s\[#*:;]+\s*:?\s*\[\[[^\[\]\n]+\]\][ \t]*(?:\n|\Z|\{\{|\[\[|<!--))", re.I
)
_LANGUAGE_PREFIX = re.compile(r"(?:[a-z]{2,3}(?:-[a-z-]+)?|simple):")
_MAGIC_WORD = re.compile(r"__(?!\w{0,40}[a-z])\w{1,40}?__")  # __TOC__ in any language
_OURS = re.compile(r"[\x00-\x08]")
_SHOWN = {ord(mark): chr(shown) for shown, mark in LITERAL.items()} | {ord(APART): ""}
_QUOTES = re.compile(r"('{2,})")
# Of Chinese and Serbian: -{zh-hans:a; zh-hant:b}-, -{H|...}-. A bare -{a}- may be part of a chemical's name.
_VARIANT_CODE = r"[a-z]{2,3}(?:-[a-z]+)*"
_VARIANT_FLAG = rf"\s*(?:[A-Z]|-|{_VARIANT_CODE})\s*"
_VARIANTS = re.compile(
    rf"-\{{({_VARIANT_FLAG}(?:;{_VARIANT_FLAG})*)\|([^{{}}]*)\}}-"
    rf"|-\{{(\s*{_VARIANT_CODE}\s*:[^{{}}]*)\}}-"
    r"|(?<![A-Za-z0-9)\]])-\{([^{}]*)\}-(?![A-Za-z0-9(\[])"
)
_INNERMOST_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_INNERMOST_TABLE = re.compile(r"^[ :*#]*\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL | re.MULTILINE)
_INNERMOST_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*>(?:(?!<ref\b).)*?</ref\s*>", re.DOTALL | re.I)
_UNCLOSED_REFERENCE = re.compile(r"</?ref\b.*", re.I)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(rf"</?(?:{'|'.join(sorted(TAGS))})\b[^<>\n]*>", re.I)
_LEFT_OVER = re.compile(r"\{\{+|\}\}+|\[\[+|\]\]+|\{\||\|\}|<!--|-->")
_IMAGE_OPTIONS = re.compile(r"(?:\b(?:thumb|thumbnail|frame|frameless|left|right|center|upright|\d+px)\s*\|)+", re.I)
_FILE_OPTIONS = rf"[^\[\]|:\n]*:[^\[\]|\n]*(?:{'|'.join(map(re.escape, MEDIA_ENDINGS))})[ _]*\|"
_TABLE_START = re.compile(r"[ \t:*#]*\{\|")
# Without the head of their table or template, rows are told by the space behind the mark, or by what only they have.
_LONELY_ROW = re.compile(r"[|!]\s|\|[-+}]|\|[^|]*(?:=|$)|\|.*\|\||![^!].*!!|\{\||\}\}")
_LIST_MARK = re.compile(r"^[*#:;]+[ \t]*")
_SPACES = re.compile(r"[^\S\n]+")
# Not of "main()"; Chinese, Japanese and Korean set the brackets of a removed template right behind the word too.
_EMPTY_BRACKETS = re.compile(r" ?(?<![A-Za-z0-9_])[(（\[][\s,;:/.–—-]*[)）\]]")
_WORD = re.compile(r"\w")


def page_document(raw: bytes, header: Header, min_chars: int) -> dict[str, Any]:
    """The document of a ``<page>`` element: its text is the title, an empty line, and the prose.

    Raises:
        LeftOut: a redirect, a page outside the articles, or one with less prose than ``min_chars`` characters.
        Unreadable: the XML is broken.
    """
    try:
        page = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        try:
            raw.decode()
        except UnicodeDecodeError as wrong:
            raise Unreadable("encoding", f"not UTF-8 (byte 0x{raw[wrong.start]:02x})") from None
        raise Unreadable("broken", f"not XML ({error})") from None
    title = page.findtext("title") or ""
    if page.findtext("ns", "0").strip() != "0":
        raise LeftOut("namespace")
    revisions = page.findall("revision")
    source = revisions[-1].findtext("text") if revisions else None
    if page.find("redirect") is not None or _REDIRECT.match(source or ""):
        raise LeftOut("redirect")
    if revisions and revisions[-1].findtext("model", "wikitext") != "wikitext":
        raise LeftOut("namespace")  # scripts, style sheets and data are no articles
    text = prose(source or "", header)
    if len(text) < min_chars:
        raise LeftOut("tiny" if text else "empty")
    return {"text": f"{title}\n\n{text}", "title": title}


def prose(source: str, header: Header) -> str:
    """Wikitext as prose: paragraphs, headings on lines of their own, list items without their marks."""
    source = _COMMENT.sub("", _OURS.sub("", source.replace("\r\n", "\n")))
    # Quotes for bold and italics are not parsed: runs that don't pair up would only slow the parser down.
    tree = mwparserfromhell.parse(source, skip_style_tags=True)
    text = _sweep("".join(_texts(tree.nodes, header)), header)
    return _layout(text.split("\n")).translate(_SHOWN)


# ---------------------------------------------------------------------------------------------------------------------
# The tree
# ---------------------------------------------------------------------------------------------------------------------


def _texts(tree: Iterable[Any], header: Header) -> Iterator[str]:
    """What each node shows as running text."""
    for node in tree:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.Wikilink):
            text = None if node.text is None else "".join(_texts(node.text.nodes, header))
            yield _link(str(node.title), text, header)
        elif isinstance(node, nodes.Tag):
            yield from _tag(node, header)
        elif isinstance(node, nodes.HTMLEntity):
            yield _OURS.sub("", node.normalize()).translate(LITERAL)
        elif isinstance(node, nodes.Heading):
            title = "".join(_texts(node.title.nodes, header)).replace("\n", " ")
            yield f"\n{HEADING * node.level}{title}\n"
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield from _texts(node.title.nodes, header)
        elif isinstance(node, nodes.Template):
            yield _template(node, header)


def _tag(node: Any, header: Header) -> Iterator[str]:
    name = str(node.tag).strip().lower()
    is_listing = name == "code" and "\n" in str(node.contents)  # on one line, code is part of a sentence
    if name in DROPPED_TAGS or is_listing:
        return
    if node.wiki_markup is not None:  # of a list; what is a table was dropped
        yield node.wiki_markup
        return
    end = "\n" if name in LINE_TAGS else ""
    yield end
    if node.contents:
        texts = _texts(node.contents.nodes, header)
        yield from (text.translate(LITERAL) for text in texts) if name == "nowiki" else texts
        yield end
    elif name == "nowiki":
        yield APART


def _template(node: Any, header: Header) -> str:
    """What a template shows within a sentence; nothing for all others."""
    name = " ".join(str(node.name).replace("_", " ").lower().split())
    if name in CHARACTERS:
        return CHARACTERS[name].translate(LITERAL)
    if name.startswith("formatnum:"):
        return "".join(_texts(node.name.nodes, header)).partition(":")[2].strip()
    if name not in _SHOWN_TEMPLATES:
        return ""
    values = {str(value.name).strip(): "".join(_texts(value.value.nodes, header)) for value in node.params}
    unnamed = [values[key] for key in sorted(filter(str.isdecimal, values), key=int)]
    if name in QUOTATIONS:
        text = values.get("text") or values.get("quote") or (unnamed[0] if unnamed else "")
        return f"\n{text}\n"
    if name in JOINED_VALUES:
        return "".join(value.strip() for value in unnamed)
    if name in LAST_VALUE:
        return unnamed[-1] if unnamed else ""
    return _VALUES[name]([value.strip() for value in unnamed], values) if unnamed else ""


def _measure(values: list[str], _: dict[str, str]) -> str:
    """``{{convert|5|to|10|km|mi}}``: 5 to 10 km. What comes behind the unit is what it is converted to."""
    shown = _grouped(values[0])
    rest = values[1:]
    while len(rest) > 1 and rest[0] in RANGES:
        shown += RANGES[rest[0]] + _grouped(rest[1])
        rest = rest[2:]
    if not rest:
        return shown
    if len(rest) > 2 and (rest[0], rest[2]) in DOUBLE_UNITS:
        return f"{shown} {rest[0]} {rest[1]} {rest[2]}"
    power = POWERS.get(rest[0][:2], "")
    unit = rest[0][2:] if power else rest[0]
    return f"{shown} {power}{UNITS.get(unit, unit)}"


def _grouped(number: str) -> str:
    """A number with its thousands set apart, as that template does."""
    return re.sub(r"(?<![\d.,])[1-9][0-9]{3,15}(?!\d)", lambda match: f"{int(match[0]):,}", number)


def _exact(values: list[str], named: dict[str, str]) -> str:
    """``{{val|6.24|0.01|e=18|u=C}}``: 6.24 ± 0.01×10^18 C."""
    uncertain = "".join(value if value.startswith("(") else f" ± {value}" for value in values[1:2] if value)
    power = f"×10^{named['e'].strip()}" if named.get("e") else ""
    unit = named.get("u") or named.get("ul") or ""
    return f"{values[0]}{uncertain}{power} {unit}".strip()


def _japanese(values: list[str], _: dict[str, str]) -> str:
    """``{{nihongo|Aikido|合気道|Aikidō}}``: Aikido (合気道)."""
    english, japanese = [*values, ""][:2]
    return f"{english} ({japanese})" if english and japanese else english or japanese


def _as_of(values: list[str], named: dict[str, str]) -> str:
    """``{{as of|2010}}``: As of 2010. Within a sentence it is told to begin in lower case."""
    return named.get("alt") or f"{'as' if named.get('lc') else 'As'} of {values[0]}"


_VALUES: dict[str, Callable[[list[str], dict[str, str]], str]] = {
    "convert": _measure,
    "cvt": _measure,
    "val": _exact,
    "nihongo": _japanese,
    "as of": _as_of,
    "angbr": lambda values, _: f"⟨{values[0]}⟩",
}
_SHOWN_TEMPLATES = LAST_VALUE | JOINED_VALUES | QUOTATIONS | _VALUES.keys()


def _link(target: str, text: str | None, header: Header) -> str:
    """What a link shows: nothing if it shows a file, or puts the page into a category or beside other languages."""
    target = html.unescape(target).strip()
    if target.startswith(":"):
        return text or target.lstrip(":").strip()
    prefix = target.translate(INVISIBLE).partition(":")[0].replace("_", " ") if ":" in target else ""
    prefix = " ".join(prefix.split()).lower()
    is_file = prefix in header.file_names or (prefix and target.lower().endswith(MEDIA_ENDINGS))
    if is_file or prefix in header.category_names or prefix in CATEGORY_NAMES:
        return ""
    if text is None:
        return "" if _LANGUAGE_PREFIX.match(target) else target.partition("#")[0] or target.lstrip("#")
    return text or target.rpartition(":")[2].partition("(")[0].strip()  # [[Paris (Texas)|]] shows "Paris"


# ---------------------------------------------------------------------------------------------------------------------
# What is left
# ---------------------------------------------------------------------------------------------------------------------


def _sweep(text: str, header: Header) -> str:
    """Takes out the markup that the parser took for text, because its other half is missing or misplaced."""
    text = _UNCLOSED_REFERENCE.sub("", _until_gone(_REFERENCE, "", text))
    text = _until_gone(_INNERMOST_TEMPLATE, "", text)
    text = _until_gone(_INNERMOST_TABLE, "", text)
    text = _until_gone(_INNERMOST_LINK, lambda match: _link_in_text(match[1], header), text)
    text = _unclosed_link(header).sub("", text)
    text = _VARIANTS.sub(_variant, text)
    text = _MAGIC_WORD.sub("", _TAG.sub("", text))
    return "\n".join(map(_without_quotes, text.split("\n")))


def _until_gone(pattern: re.Pattern[str], replacement: Any, text: str) -> str:
    """Replaces from the inside out."""
    count = 1
    while count:
        text, count = pattern.subn(replacement, text)
    return text


def _link_in_text(inside: str, header: Header) -> str:
    target, bar, text = inside.partition("|")
    return _link(target, text.rpartition("|")[2] if bar else None, header)


@lru_cache(maxsize=8)
def _unclosed_link(header: Header) -> re.Pattern[str]:
    """The rest of a line behind the start of a link to a file or a category."""
    names = sorted({*header.file_names, *header.category_names, *CATEGORY_NAMES})
    pattern = "|".join(re.escape(name).replace(r"\ ", "[ _]+") for name in names)
    return re.compile(rf"\[\[[ _]*(?:(?:{pattern})[ _]*:|{_FILE_OPTIONS})[^\n]*", re.I)


def _variant(match: re.Match[str]) -> str:
    """The first variant that a language converter would choose from; nothing for rules that show nothing."""
    flags, flagged, coded, bare = match.groups()
    if {flag.strip() for flag in (flags or "").split(";")} & set("HT-"):
        return ""
    first = (flagged or coded or bare or "").split(";")[0]
    return first.partition(":")[2].strip() if re.match(rf"\s*{_VARIANT_CODE}\s*:", first) else first


def _without_quotes(line: str) -> str:
    """A line without the marks of bold and italics, which are told from apostrophes as MediaWiki's doQuotes does.

    Two are italics, three are bold, five are both; of four and of more than five, the first are apostrophes. Where
    neither bold nor italics pair up, one mark of bold is an apostrophe and italics: ``''A Tale'''s``.
    """
    parts = _QUOTES.split(line)  # the marks are at odd places
    for place in range(1, len(parts), 2):
        apostrophes = 1 if len(parts[place]) == 4 else max(0, len(parts[place]) - 5)
        parts[place - 1] += "'" * apostrophes
        parts[place] = parts[place][apostrophes:]
    lengths = [len(mark) for mark in parts[1::2]]
    both = lengths.count(5)
    if (lengths.count(2) + both) % 2 and (lengths.count(3) + both) % 2 and 3 in lengths:
        # The first behind a word of one letter ("l'''eau''"), else behind any word, else behind a space.
        bold = (text for text, length in zip(range(0, len(parts), 2), lengths, strict=False) if length == 3)
        chosen = min(bold, key=lambda text: 2 if parts[text].endswith(" ") else parts[text][-2:-1] != " ")
        parts[chosen] += "'"
    return "".join(parts[::2])


def _layout(lines: list[str]) -> str:
    """Clean lines: at most one empty one between two others, no heading without text under it."""
    result: list[str] = []
    headings: list[tuple[int, str]] = []  # that wait for text under them
    in_table = False
    for raw in lines:
        level = len(raw) - len(raw.lstrip(HEADING))
        in_table = not level and (in_table or bool(_TABLE_START.match(raw))) and not raw.lstrip().startswith("|}")
        line = _clean_line(raw[level:], in_table)
        if level:
            while headings and headings[-1][0] >= level:
                headings.pop()
            if line:
                headings.append((level, line))
        elif line:
            for _, heading in headings:
                result += ["", heading, ""]
            headings.clear()
            result.append(line)
        elif not raw.strip() and result and result[-1] and not headings:
            result.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(result).strip("\n"))


def _clean_line(line: str, in_table: bool) -> str:
    """A line without markup at its beginning, doubled spaces and what removed templates leave; empty if no word is."""
    line = _LIST_MARK.sub("", line.translate(INVISIBLE).strip())
    if _LONELY_ROW.match(line) or (in_table and line.startswith(("|", "!"))) or not _WORD.search(line):
        return ""
    line = _IMAGE_OPTIONS.sub("", _LEFT_OVER.sub("", line))
    line = _SPACES.sub(" ", line)
    line = _EMPTY_BRACKETS.sub("", _EMPTY_BRACKETS.sub("", line))
    line = re.sub(r"([(（])[\s,;]+", r"\1", line)
    line = re.sub(r"[\s,;]+([)）])", r"\1", line)
    line = re.sub(r" +([,.])(?=\s|$)", r"\1", line).strip()
    return line if _WORD.search(line) else ""
