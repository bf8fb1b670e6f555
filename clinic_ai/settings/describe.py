"""Reads the model of the settings as a list of tables and keys, for the sample file, the docs and the errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from inspect import cleandoc
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from clinic_ai.settings.kinds import Form, Unit
from clinic_ai.settings.model import Settings


@dataclass(frozen=True)
class KeyInfo:
    """One key: ``kind`` is its type in words, ``unit`` is empty where there is none."""

    name: str
    kind: str
    default: object
    unit: str
    comment: str
    example: object
    """The default, or where that shows nothing a value that does; None if there is none."""
    choices: tuple[str, ...]
    """The texts it, or each element of it, may be; empty if it is free."""
    limits: str
    """The numbers it may be, such as ``0.1 to 3600``; empty if it is free."""


@dataclass(frozen=True)
class TableInfo:
    """One table, by its dotted name. ``examples`` are models of it to show where the default is an empty list."""

    name: str
    model: type[BaseModel]
    repeated: bool
    comment: str
    defaults: tuple[BaseModel, ...]
    examples: tuple[BaseModel, ...]

    def plain_keys(self) -> list[KeyInfo]:
        """Return the keys of this table that are not tables of their own."""
        return [key_info(name, field) for name, field in self.model.model_fields.items() if table_model(field) is None]


def tables(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[TableInfo]:
    """Yield every table in the order of the file, each before the tables inside it."""
    for name, field in model.model_fields.items():
        inner = table_model(field)
        if inner is None:
            continue
        default = field.get_default(call_default_factory=True)
        repeated = isinstance(default, tuple)
        path = f"{prefix}{name}"
        yield TableInfo(
            name=path,
            model=inner,
            repeated=repeated,
            comment=cleandoc(inner.__doc__ or ""),
            defaults=default if isinstance(default, tuple) else (default,),
            examples=tuple(field.examples or ()),
        )
        yield from tables(inner, f"{path}.")


def table_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the table, or of each table of the list, that a field holds; None for a plain key."""
    annotation = field.annotation
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def model_at(path: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model of the table a path leads to."""
    model: type[BaseModel] = Settings
    for step in path:
        if isinstance(step, str):
            model = table_model(model.model_fields[step]) or model
    return model


def field_at(path: tuple[str | int, ...]) -> FieldInfo | None:
    """Return the key a path leads to; for an element of a list, the list's key; None if there is none."""
    names = [step for step in path if isinstance(step, str)]
    return model_at(tuple(names[:-1])).model_fields.get(names[-1]) if names else None


def key_info(name: str, field: FieldInfo) -> KeyInfo:
    """Describe a plain key."""
    default = field.get_default(call_default_factory=True)
    example = default or next((m.example for m in field.metadata if isinstance(m, Form)), None)
    options = _choices(field.annotation)
    unit = next((m.name for m in field.metadata if isinstance(m, Unit)), "")
    return KeyInfo(
        name=name,
        kind=_kind(field.annotation, field.metadata),
        default=default,
        unit=unit,
        comment=field.description or "",
        example=example,
        choices=options,
        limits=_limits(field),
    )


_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
_MANY = {float: "numbers", int: "whole numbers", str: "texts"}


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """Return a type in words, such as ``a list of texts``."""
    form = next((m.words for m in metadata if isinstance(m, Form)), "")
    if form:
        return form
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], list(arguments[1:]))
    if origin is UnionType:
        return _kind(next(a for a in arguments if a is not type(None)), [])
    if origin is tuple:
        return f"a list of {_MANY.get(_bare(arguments[0])) or _kind(arguments[0], []).removeprefix('one of ')}"
    options = _choices(annotation)
    return f"one of {', '.join(options)}" if options else _KINDS[annotation]


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(member.value for member in annotation)
    return ()


def _limits(field: FieldInfo) -> str:
    low = next((f"{m.ge:g}" for m in field.metadata if hasattr(m, "ge")), "")
    high = next((f"{m.le:g}" for m in field.metadata if hasattr(m, "le")), "")
    return f"{low} to {high}" if low and high else f"{low} or more" if low else ""


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def toml_value(value: object) -> str:
    """Return a text, number, truth value or list of them as TOML writes it."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML also forbids a bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
