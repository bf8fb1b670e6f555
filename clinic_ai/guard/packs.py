"""Where the packs are that ship with the appliance."""

from __future__ import annotations

from pathlib import Path

from clinic_ai.errors import PolicyError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_pack(name: str) -> Path:
    """Return the folder of a shipped pack, such as ``default``: package data, or the repository's ``policies/``.

    Raise PolicyError if there is none of that name.
    """
    roots = (_PACKAGE / "_shipped" / "policies", _PACKAGE.parent / "policies")
    if name == Path(name).name and not name.startswith("."):
        for root in roots:
            if (root / name / "policy.toml").is_file():
                return root / name
    known = sorted({p.parent.name for root in roots for p in root.glob("*/policy.toml")})
    raise PolicyError(
        f"No policy pack named {name!r} ships with this installation.",
        remedy=f"Use one of: {', '.join(known)}." if known else "Reinstall clinic-ai; its policy packs are missing.",
    )
