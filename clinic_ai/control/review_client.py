"""The client of reviews, and the text a person edits: one statement after its id in brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from clinic_ai.control.client import LONG_S, MAX_PAGE, Client, all_pages, page_query, segment
from clinic_ai.control.pages import ReviewPage
from clinic_ai.control.review_views import (
    AcceptReview,
    AmendReview,
    ConsentOrder,
    RejectReview,
    ReviewOrder,
    ReviewRow,
    ReviewView,
    SignersView,
)
from clinic_ai.control.views import DoneView
from clinic_ai.domain.reviews import MAX_PASSAGES, Passage
from clinic_ai.domain.words import MAX_TEXT
from clinic_ai.errors import ClinicError

HELP = (
    "# One statement after its id in brackets. Change the words; remove a statement with its id to leave it out;\n"
    "# begin a new one with [new]. Lines that begin with # are not part of it.\n"
)
_HEAD = re.compile(r"\[([a-z][a-z0-9_]{0,63})\][ \t]*")


class ReviewClient(Client):
    """Talks to the daemon of one home about reviews; raises what ``Client`` raises."""

    def reviews(self, limit: int) -> list[ReviewRow]:
        """Return what waits for a person, ``limit`` at most."""
        return list(self.reviews_page(limit=limit).reviews)

    def all_reviews(self) -> Iterator[ReviewRow]:
        """Yield everything that waits for a person."""

        def fetch(before: str | None) -> tuple[Sequence[ReviewRow], str | None]:
            page = self.reviews_page(before=before)
            return page.reviews, page.next_before

        return all_pages(fetch)

    def reviews_page(self, *, limit: int = MAX_PAGE, before: str | None = None) -> ReviewPage:
        """Return one page of what waits for a person. Raise NotFound."""
        return self._get("/v1/reviews", ReviewPage, page_query(before, limit))

    def signers(self) -> SignersView:
        """Return the names that results are signed with here. Raise NotAllowed."""
        return self._get("/v1/reviews/signers", SignersView)

    def review(self, artefact_id: str, reviewer: str | None = None, *, deciding: bool = False) -> ReviewView:
        """Return an artefact as one would sign it. Raise NotFound, NotAllowed or Conflict.

        ``deciding`` raises NotAllowed for a name that cannot sign too, before anybody is asked whether to.
        """
        query: dict[str, object] = {"deciding": deciding}
        if reviewer is not None:
            query["reviewer"] = reviewer
        return self._get(f"/v1/reviews/{segment(artefact_id, 'artefact')}", ReviewView, query)

    def accept(self, artefact_id: str, order: AcceptReview) -> DoneView:
        """Sign an artefact as it was shown. Raise Conflict."""
        return self._decide(artefact_id, "accept", order)

    def amend(self, artefact_id: str, order: AmendReview) -> DoneView:
        """Sign an artefact in other words. Raise Conflict, or ClinicError if the guard does not let them out."""
        return self._decide(artefact_id, "amend", order)

    def reject(self, artefact_id: str, order: RejectReview) -> DoneView:
        """Let nothing of an artefact go out. Raise Conflict."""
        return self._decide(artefact_id, "reject", order)

    def consent(self, review_id: str, consent: bool) -> DoneView:
        """Say whether models may learn from a review. Raise NotFound."""
        path = f"/v1/reviews/{segment(review_id, 'review')}/consent"
        return self._post(path, ConsentOrder(consent=consent), DoneView)

    def _decide(self, artefact_id: str, verb: str, order: ReviewOrder) -> DoneView:
        return self._post(f"/v1/reviews/{segment(artefact_id, 'artefact')}/{verb}", order, DoneView, timeout_s=LONG_S)


def to_edit(view: ReviewView) -> str:
    """Return the words of an artefact as a person edits them; of what the guard keeps back, the id and why alone."""
    kept = {d.rule: d.reason for d in view.decisions if d.action in {"hold", "block"}}
    why = [f"# {rule}: {reason}" for rule, reason in kept.items()] if view.withheld else []
    withheld = [
        f"# [{statement_id}] is kept back by the guard; write it anew or leave it out."
        for statement_id in view.withheld
    ]
    said = [f"[{one.statement_id}]\n{one.text}\n" for one in view.statements]
    return HELP + "\n".join([*withheld, *why, "", *said])


def from_edit(text: str, taken: Sequence[str] = ()) -> tuple[Passage, ...]:
    """Return the statements of an edited text; without any id all of it is one new statement.

    ``taken`` are ids that new statements must not get. Raise ClinicError if an id stands twice, there is no word, or
    a statement is too long.
    """
    blocks: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        head = _HEAD.match(line)
        if head is not None:
            blocks.append((head[1], [line[head.end() :]]))
        elif blocks:
            blocks[-1][1].append(line)
        elif line.strip():
            blocks.append(("new", [line]))
    used = {*taken, *(key for key, _ in blocks)}
    fresh = (key for number in range(1, MAX_PASSAGES + len(used) + 2) if (key := f"n_{number}") not in used)
    passages = []
    for key, lines in blocks:
        words = "\n".join(lines).strip()
        if len(words) > MAX_TEXT:
            raise ClinicError(
                f"The statement under [{key}] has {len(words)} characters; {MAX_TEXT} is the most one may have.",
                remedy="Nothing was decided. Shorten it, or begin another statement with [new].",
            )
        if words:
            passages.append(Passage(statement_id=next(fresh) if key == "new" else key, text=words))
    keys = [passage.statement_id for passage in passages]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice or not passages:
        what = f"[{twice[0]}] stands twice in the text." if twice else "The text has no word in it."
        raise ClinicError(what, remedy="Each statement once, after its id in brackets; [new] begins a new one.")
    return tuple(passages)
