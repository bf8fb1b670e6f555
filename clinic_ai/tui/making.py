"""Orders as people type them: what is not allowed in one is said in a sentence."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from clinic_ai.control.views import Order
from clinic_ai.errors import ClinicError

O = TypeVar("O", bound=Order)  # noqa: E741


def made(shape: type[O], **values: object) -> O:
    """Return an order. Raise ClinicError, saying what is wrong with which part of it."""
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        part = ".".join(map(str, wrong["loc"])) or "what was typed"
        raise ClinicError(
            f"Not sent: {part}: {wrong['msg']}.", remedy="Nothing was changed. Correct it and send it again."
        ) from error
