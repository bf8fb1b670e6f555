"""The files of a pack, turned into models, word lists and templates; what is wrong is said in sentences."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clinic_ai.errors import PolicyError
from clinic_ai.guard.layers import laid_over, load_toml
from clinic_ai.guard.lexicon import Lexicon, parse_lexicon
from clinic_ai.guard.packfiles import BASE
from clinic_ai.guard.templates import Templates, parse_templates

Model = TypeVar("Model", bound=BaseModel)


def refuse_if(label: str, problems: Sequence[str]) -> None:
    """Raise PolicyError if there is any problem; the message lists all."""
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise PolicyError(
            f"The policy pack {label} cannot be used:\n{listed}",
            remedy="Correct the pack and run `clinic-ai policy test`; until then the pack before it stays active.",
        )


def _text(files: Mapping[str, bytes], name: str, problems: list[str]) -> str | None:
    if name not in files:
        problems.append(f"{name} is missing")
        return None
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError as error:
        problems.append(f"{name} is not UTF-8 text (byte {error.start}); save it with the encoding UTF-8")
        return None


def parse_model(files: Mapping[str, bytes], name: str, model: type[Model], problems: list[str]) -> Model | None:
    """Return a TOML file of a pack as a model; None, with the reasons added to ``problems``, if it is none."""
    content = _text(files, name, problems)
    if content is None:
        return None
    try:
        return model.model_validate(load_toml(files, name))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{name} is not TOML: {error}")
    except ValidationError as error:
        problems += [f"{name}: {sentence(e)}" for e in error.errors(include_url=False, include_context=False)]
    return None


def sentence(error: Mapping[str, Any]) -> str:
    """Return one of the errors of a ValidationError in words: where, and what is wrong there."""
    place = ".".join(str(part) for part in error["loc"])
    plain = {"missing": "it is missing", "extra_forbidden": "there is no such key"}.get(error["type"])
    if plain:
        return f"{place}: {plain}"
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _named(files: Mapping[str, bytes], folder: str, suffix: str) -> list[tuple[str, str]]:
    """Return (name, path) of the files of a folder that end in ``suffix``."""
    paths = (path for path in files if path.startswith(folder + "/") and path.endswith(suffix) and path.count("/") == 1)
    return [(path[len(folder) + 1 : -len(suffix)], path) for path in paths]


def read_lexicons(files: Mapping[str, bytes], problems: list[str]) -> dict[str, Lexicon]:
    """Return the word lists of a pack and of the one it extends, by name; add to ``problems`` what is wrong."""
    lexicons: dict[str, Lexicon] = {}
    for name, path in _named(laid_over(files), "lexicons", ".txt"):
        own = path in files
        content = _text(files, path if own else BASE + path, problems)
        base = _text(files, BASE + path, problems) if own and BASE + path in files else None
        # A list that cannot be read stays as an empty one: that each rule then lacks it would only repeat the problem.
        lexicons[name] = Lexicon(())
        if content is not None:
            try:
                lexicons[name] = parse_lexicon(name, content, base=base)
            except ValueError as error:
                problems.append(str(error))
    return lexicons


def read_templates(files: Mapping[str, bytes], problems: list[str]) -> dict[str, Templates]:
    """Return the templates of a pack by language, in lower case; add to ``problems`` what is wrong."""
    templates: dict[str, Templates] = {}
    for name, path in _named(files, "templates", ".toml"):
        parsed = parse_model(files, path, Templates, problems)
        if parsed is not None:
            problems += [f"{path}: {problem}" for problem in parse_templates(parsed)]
            templates[name.lower()] = parsed
    if not templates:
        problems.append("there is no usable templates/<language>.toml")
    return templates
