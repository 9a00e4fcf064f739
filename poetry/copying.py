"""How much of a text is copied: the longest run of words that also stands in the training texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BETWEEN_TEXTS = ""  # no word; so that no run goes on from one text into the next


class CopyIndex:
    """All runs of words of some texts, as a suffix automaton (Blumer et al. 1985).

    Building it takes time and memory in proportion to the number of words; a look-up takes one step per word of the
    text that is looked up.
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        last = 0
        for text in texts:
            for word in (*text, BETWEEN_TEXTS):
                last = self._extend(last, word)

    def _extend(self, last: int, word: str) -> int:
        new = self._state({}, 0, self._length[last] + 1)
        at = last
        while at != -1 and word not in self._next[at]:
            self._next[at][word] = new
            at = self._link[at]
        if at == -1:
            return new
        target = self._next[at][word]
        if self._length[target] == self._length[at] + 1:
            self._link[new] = target
            return new
        clone = self._state(dict(self._next[target]), self._link[target], self._length[at] + 1)
        while at != -1 and self._next[at].get(word) == target:
            self._next[at][word] = clone
            at = self._link[at]
        self._link[target] = self._link[new] = clone
        return new

    def _state(self, following: dict[str, int], link: int, length: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        return len(self._next) - 1

    def longest_run(self, words: Sequence[str]) -> int:
        """The number of words in a row of ``words`` that stand in one of the texts just so."""
        at = length = longest = 0
        for word in words:
            while at and word not in self._next[at]:
                at = self._link[at]
                length = self._length[at]
            if word in self._next[at]:
                at = self._next[at][word]
                length += 1
            longest = max(longest, length)
        return longest
