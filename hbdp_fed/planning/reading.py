"""What people and programs wrote, read into frozen types; the first thing that is wrong is told in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hbdp_fed.errors import SettingError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.?inf", re.IGNORECASE)


def _number(value: Any) -> Any:
    """YAML takes ``1e-5`` and ``inf`` for text, and true for 1 is nobody's number."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}")
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value.strip().replace(".inf", "inf"))
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
PositiveOrInfinite = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
OpenUnit = Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)]
Share = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, BeforeValidator(_number), Field(ge=0, le=10**9)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of a file: what is not a field of it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Kind = TypeVar("Kind", bound=BaseModel)


def read_as(kind: type[Kind], value: Any) -> Kind:
    """``value``, plain mappings and lists, as a ``kind``.

    Raises:
        SettingError: about the first thing that is wrong, with its place as in ``hospitals[2].records``.
    """
    if not isinstance(value, Mapping):
        raise SettingError("(the whole file)", f"must be a mapping with the keys: {', '.join(kind.model_fields)}")
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        # A misspelt key is also a missing one: its own name helps more.
        first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
        raise SettingError(_place(first["loc"]), _problem(kind, first)) from error


def nearest(name: str, known: list[str]) -> str:
    """``did you mean 'x'?``, or all that is known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"the keys are: {', '.join(known)}"


def _place(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "(the whole file)"


_PROBLEMS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda found: "is missing",
    "greater_than": lambda found: f"must be above {found['ctx']['gt']:g}",
    "greater_than_equal": lambda found: f"must be at least {found['ctx']['ge']:g}",
    "less_than": lambda found: f"must be below {found['ctx']['lt']:g}",
    "less_than_equal": lambda found: f"must be at most {found['ctx']['le']:g}",
    "finite_number": lambda found: "must be finite",
    "value_error": lambda found: str(found["ctx"]["error"]),
    "literal_error": lambda found: f"must be one of {found['ctx']['expected']}",
    "too_short": lambda found: f"must have at least {found['ctx']['min_length']} entries",
    "string_too_short": lambda found: "must not be empty",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), lambda found: "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), lambda found: "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), lambda found: "must be true or false"),
    "string_type": lambda found: "must be text",
    **dict.fromkeys(("list_type", "tuple_type"), lambda found: "must be a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), lambda found: "must be a mapping"),
}
_SAYS_WHAT_IT_GOT = ("missing", "value_error")


def _problem(kind: type[BaseModel], found: Mapping[str, Any]) -> str:
    if found["type"] == "extra_forbidden":
        return f"there is no such key; {nearest(str(found['loc'][-1]), _keys_at(kind, found['loc'][:-1]))}"
    telling = _PROBLEMS.get(found["type"])
    says = str(found["msg"]) if telling is None else telling(found)
    return says if found["type"] in _SAYS_WHAT_IT_GOT else f"{says}, got {_short(found['input'])}"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The fields of the section that lies there."""
    for part in location:
        if isinstance(part, str):
            kind = next(_sections(kind.model_fields[part].annotation))
    return list(kind.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type speaks of, such as that of ``tuple[Section, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
