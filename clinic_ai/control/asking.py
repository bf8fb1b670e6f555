"""Who asks, and what they may: the dependencies that the routes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi import Path as FromPath

from clinic_ai.control.people import Peer, Person
from clinic_ai.control.services import Services
from clinic_ai.control.views import Role
from clinic_ai.errors import NotAllowed


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def _person(request: Request) -> Person:
    found: Person = request.state.person
    return found


def needs(role: Role) -> Callable[[Request], Person]:
    """Return a check that the person who asks has a role, which raises NotAllowed and is written down if not."""

    def check(request: Request) -> Person:
        person = _person(request)
        if not person.role.covers(role):
            request.app.state.refusals.note(person.name, request.method, request.url.path, f"not {role.value}")
            raise NotAllowed(
                f"This needs the role {role.value}; {person.name} is {person.role.value}.",
                remedy="An administrator changes roles in [control] of clinic.toml.",
            )
        return person

    return check


def content(request: Request) -> Person:
    """Return a clinician on the control socket: who may read what a study shows. Raise NotAllowed if it is not."""
    person = needs(Role.CLINICIAN)(request)
    peer: Peer = request.state.peer
    if peer.readonly:
        request.app.state.refusals.note(person.name, request.method, request.url.path, "monitor socket")
        raise NotAllowed("The monitor socket does not show what studies show.", remedy="Use the control socket.")
    return person


Id = Annotated[str, FromPath(max_length=100)]
"""What names a thing in a path; the refusal of one that there is not repeats it."""
Having = Annotated[Services, Depends(_services)]
Anyone = Annotated[Person, Depends(needs(Role.TECHNICIAN))]
Clinician = Annotated[Person, Depends(needs(Role.CLINICIAN))]
Content = Annotated[Person, Depends(content)]
"""A clinician who does not ask on the monitor socket."""
Administrator = Annotated[Person, Depends(needs(Role.ADMINISTRATOR))]
