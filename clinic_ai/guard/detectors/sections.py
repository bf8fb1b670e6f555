"""Sections of a report that say nothing of this study: why it was made, how, and what it was compared with."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from clinic_ai.guard.text import Text, word_set

_SILENT = word_set(
    "indication indications history comparison comparisons reason technique procedure protocol clinical anamnesis"
    " anamnese klinik fragestellung indikation vergleich technik"
)
_BESIDE = _SILENT | word_set(
    "for of the and exam examination study test visit present illness information info data details question notes"
    " medical past relevant patient prior previous brief scan imaging klinische angaben"
)
"""What a silent heading may hold beside the word that makes it one."""
_SPEAKING = word_set(
    "findings finding impression conclusion conclusions opinion result results report assessment interpretation summary"
    " comment comments diagnosis lungs lung chest heart pleura mediastinum bones befund beurteilung"
)
_MOST_WORDS = 6


def silent(text: Text) -> tuple[tuple[int, int], ...]:
    """Return the token ranges (first, last + 1) of such sections, each from its heading to the next or a blank line.

    With neither behind it, a section ends with the sentence it begins with.
    """
    if ":" not in text.raw:
        return ()
    headings = [
        (first, _is_silent(text, first, at)) for at in _before_colons(text) if (first := _heading(text, at)) is not None
    ]
    ranges: list[tuple[int, int]] = []
    for number, (first, quiet) in enumerate(headings):
        if quiet:
            last = headings[number + 1][0] if number + 1 < len(headings) else _sentence_end(text, first)
            ranges.append((first, _blank_line(text, first, last)))
    return tuple(ranges)


def _before_colons(text: Text) -> list[int]:
    """Return the tokens that a colon stands right behind."""
    raw, found, at = text.raw, [], text.raw.find(":")
    while at >= 0:
        token = bisect_right(text.starts, at) - 1
        if token >= 0 and not raw[text.ends[token] : at].strip():
            found.append(token)
        at = raw.find(":", at + 1)
    return found


def _heading(text: Text, last: int) -> int | None:
    """Return the first token of the heading that ends at ``last``, or None if no heading does."""
    first = last
    while first and last - first < _MOST_WORDS and text.words[first - 1] in _BESIDE:
        if any(c in text.raw[text.ends[first - 1] : text.starts[first]] for c in ".;:,\n"):
            break
        first -= 1
    if _is_silent(text, first, last):
        return first
    written = text.raw[text.starts[last] : text.ends[last]]
    return last if text.words[last] in _SPEAKING or (written.isupper() and len(written) > 3) else None


def _is_silent(text: Text, first: int, last: int) -> bool:
    words = text.words[first : last + 1]
    return not _SILENT.isdisjoint(words) and _BESIDE.issuperset(words)


def _sentence_end(text: Text, first: int) -> int:
    """Return the end of the sentence behind a heading; one with the heading alone in its line counts as not begun."""
    sentences = text.sentences
    number = bisect_right([start for start, _ in sentences], first) - 1
    end = sentences[number][1]
    alone = ":" in text.raw[text.ends[end - 1] : text.starts[end] if end < len(text.starts) else None]
    return sentences[number + 1][1] if alone and number + 1 < len(sentences) else end


def _blank_line(text: Text, first: int, last: int) -> int:
    """Return where a blank line ends the section; one right behind the heading does not."""
    end = text.starts[last] if last < len(text.starts) else len(text.raw)
    at = text.raw.find("\n\n", text.starts[first], end)
    if at >= 0 and ":" not in text.raw[max(0, at - 2) : at]:
        return min(last, bisect_left(text.starts, at))
    return last
