"""HTML put together so that nothing from outside gets in unescaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """Text that is HTML already; every other text is escaped when it becomes part of an element."""

    __slots__ = ()


Content = str | Html | None | Iterable["Content"]


def element(name: str, /, *content: Content, **attributes: str | bool | float | None) -> Html:
    """``<name attributes>content</name>``.

    Args:
        content: texts, which are escaped; HTML, which is not; lists of both; None for nothing.
        attributes: ``class_`` is written ``class``, ``data_value`` as ``data-value``; None and False are left out, True
            is written without a value.
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        written += f" {word}" if value is True else f' {word}="{html.escape(str(value), quote=True)}"'
    if name in ("meta", "br", "col"):
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(content: Content) -> Html:
    """Contents one after the other."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(content, quote=True))
    return Html("".join(join(part) for part in content))
