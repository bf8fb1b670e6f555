"""The names that results and promotions of models are signed with here."""

from __future__ import annotations

from clinic_ai.errors import NotAllowed
from clinic_ai.settings import ReviewSettings


def signing_name(settings: ReviewSettings, user: str, wanted: str | None) -> str:
    """Return the name a person signs with: one of ``review.reviewers``, or that of the Unix user.

    Raise NotAllowed if clinic.toml does not list it, or nobody can be named.
    """
    listed = settings.reviewers
    name = (wanted if wanted is not None else user).strip()
    if name in listed or (not listed and wanted is None and name and not name.startswith("uid ")):
        return name
    names = "; ".join(listed)
    raise NotAllowed(
        f"{name or 'Nobody'} is not a name that results are signed with here.",
        remedy=f"Sign with --as and one of: {names}."
        if listed
        else "An administrator lists names under [review] reviewers in clinic.toml, and reloads.",
    )
