"""Writes the sample ``clinic.toml`` and the table of ``docs/settings.md`` from the model, so they cannot lag behind.

``python -m clinic_ai.settings sample`` and ``python -m clinic_ai.settings table`` print them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from pydantic import BaseModel

from clinic_ai.settings.describe import KeyInfo, TableInfo, key_info, table_model, tables, toml_value

_HEAD = """\
Settings of clinic-ai. Every key is here with its default; a key that is missing has that default too.
Check the file with `clinic-ai doctor`. The daemon reads it at start and on SIGHUP; with a mistake in it,
it says every mistake at once and keeps the settings it has."""


def render_default() -> str:
    """Return the sample file: every key with its default, unit and comment, valid as it stands."""
    blocks = [_commented(_HEAD)]
    # A rule is shown with its condition table, so tables inside repeated tables are not shown again.
    blocks += [_sample(table) for table in tables() if "." not in table.name or table.repeated]
    return "\n\n".join(blocks) + "\n"


def render_table() -> str:
    """Return the reference of all keys in Markdown, one section for each table."""
    return "\n".join(_reference(table) for table in tables())


def _sample(table: TableInfo) -> str:
    header = f"[[{table.name}]]" if table.repeated else f"[{table.name}]"
    if table.defaults:
        return "\n".join(_block(header, table.name, table.comment, model) for model in table.defaults)
    return "\n".join(_off(_block(header, table.name, table.comment, model)) for model in table.examples)


def _block(header: str, name: str, comment: str, model: BaseModel) -> str:
    """Return one table with its keys, and the single tables inside it, holding the values of ``model``."""
    lines = [_commented(comment), header]
    inner = []
    for key, field in type(model).model_fields.items():
        value = getattr(model, key)
        if table_model(field) is None:
            lines += _key_lines(key_info(key, field), value)
        elif isinstance(value, BaseModel):
            inner.append(_block(f"[{name}.{key}]", f"{name}.{key}", field.description or "", value))
    return "\n".join([*lines, *inner])


def _key_lines(info: KeyInfo, value: object) -> list[str]:
    hints = "; ".join(
        h for h in (info.unit, "" if info.default is None else f"default {toml_value(info.default)}") if h
    )
    comment = _commented(f"{info.comment} ({hints})" if hints else info.comment)
    # TOML has no null: a key without a default is shown switched off.
    return [comment, f"#{info.name} = 1" if value is None else f"{info.name} = {toml_value(value)}"]


def _commented(text: str) -> str:
    lines: Iterable[str] = text.split("\n")
    wrapped = [piece for line in lines for piece in (textwrap.wrap(line, 110) or [""])]
    return "\n".join(f"# {line}".rstrip() for line in wrapped)


def _off(block: str) -> str:
    """Switch a block off: ``#key`` is a key switched off, ``# words`` stays a comment."""
    return "\n".join(line if line.startswith("#") else f"#{line}" for line in block.split("\n"))


def _reference(table: TableInfo) -> str:
    header = f"`[[{table.name}]]`" if table.repeated else f"`[{table.name}]`"
    rows = [
        f"| `{key.name}` | {_type_cell(key)} | {_default_cell(key)} | {key.unit or '–'} | {_cell(key.comment)} |"
        for key in table.plain_keys()
    ]
    return "\n".join(
        [
            f"### {header}",
            "",
            table.comment.replace("``", "`"),
            "",
            "| key | type | default | unit | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _type_cell(key: KeyInfo) -> str:
    words = key.kind.removeprefix("a ").removeprefix("the ")
    return _cell(f"{words}, {key.limits}" if key.limits else words)


def _default_cell(key: KeyInfo) -> str:
    return "none" if key.default is None else f"`{_cell(toml_value(key.default))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
