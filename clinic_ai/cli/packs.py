"""Which policy pack a command means: a folder, or the name of one in the home's ``policies/``."""

from __future__ import annotations

from pathlib import Path

from clinic_ai.cli.options import home_of


def find_pack(named: Path | None, home: Path | None) -> Path:
    """Return the folder of a pack: of the one that clinic.toml names if ``named`` is None.

    A bare name is one of the home's packs, or else a folder here; anything with a slash is a path. Raise PolicyError,
    which lists the packs of the home, if there is no such folder.
    """
    place = home_of(home)
    if named is None:
        from clinic_ai.settings import load_settings

        return place.policies / load_settings(place.clinic_toml).guard.pack
    of_home = place.policies / named
    if len(named.parts) == 1 and _is_pack(of_home):
        return of_home
    if named.is_dir():
        return named
    from clinic_ai.errors import PolicyError

    known = packs_in(place.policies)
    raise PolicyError(
        f"There is no policy pack {named}, neither in {place.policies} nor in the current folder.",
        remedy=f"The packs of this home are: {', '.join(known)}. Name one of them, or give the path of a folder."
        if known
        else f"Put the pack into {place.policies}, or give the path of its folder.",
    )


def packs_in(directory: Path) -> list[str]:
    """Return the names of the packs in a folder, sorted."""
    return sorted(file.parent.name for file in directory.glob("*/policy.toml"))


def _is_pack(directory: Path) -> bool:
    try:
        return (directory / "policy.toml").is_file()
    except PermissionError:  # a home of somebody else; the name may still be that of a folder here
        return False
