"""Command lines as careless or malicious people type them, drawn for tests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from omegaconf import OmegaConf

from simulations.compose import choices, compose_run, groups, setting_names

_HARMLESS = shlex.split(
    "auto none all sgd adamw cosine median krum trimmed_mean equal tolerate dirichlet natural power_law tight rdp cpu "
    "gradient imprint scaffold bf16 opacus json md csv table skip relaxed local tensorboard"
)
_GRAMMAR = shlex.split(
    "null true no ??? '${' '${}' '${name}' '${eps}' '${oc.env:HOME}' '/tmp/${oc.env:HOME}' '\\${name}' '[${eps}]' "
    "'{a: ${eps}}' '${oc.decode:1}' '${hydra:runtime.cwd}' '${nosuch:1}' 1,2 a, [ ] [[ { } {a {a:} [,] '(' ')' a=b = : "
    "a:b @ %s%n -- '#' '&anchor' '*alias' '!!python/object/apply:os.system [true]' 'choice(1,2)' 'range(1,4)' "
    "'range(1,1000000000000)' 'range(1,9,1e-300)' 'interval(0,1)' 'glob(*)' 'sort(3,1)' 'shuffle(1,2)' 'int(a)' "
    "'tag(a,choice(1,2))' 'float(inf)' 'str([1])' 'nosuch(1)' '[null]' '[???]' '[[]]' '[{}]' {} [] '{null: 1}' '{1: 2}'"
)
_PATHS = shlex.split(".. ../../x / /etc/passwd '~' '~nobody/x' /dev/null /dev/full /nonexistent/a/b a/../b")
_SECTIONS = [
    "{default: {availability: nan}}", "{default: {records_per_s: 1e-300}}", "{hospital-01: {nosuch: 1}}",
    "[{hospital: hospital-01, round: 1, kind: empty}]", "[{hospital: [], round: {}, kind: null}]", "[{eps: 1}]",
    "[{eps: -1, rounds: 1, local_steps: 1, learning_rate: 1, expected_batch: 1, max_grad_norm: 1}]",
    "[{eps: nan, rounds: 1, local_steps: 1, learning_rate: 1, expected_batch: 1, max_grad_norm: 1}]",
    "[update,aggregate]", "[imprint,membership]", "[hospital-01]", "[hospital-01,hospital-01]", "[0,1]", "[1,1e9,inf]",
]  # fmt: skip
_SIGNS = ["", "'", '"', "\\", "\x00", "\x1b[2J", "\u202e", "\ud7ff", "é", "'é'", "'\U0001f600'", "\t", "\n", "' '"]
_LONG = [
    "0" * 5000, "1" * 5000, "x" * 40_000, "[" * 3000, "[" * 300 + "]" * 300, "{a:" * 300 + "1" + "}" * 300,
    "[" * 15 + "]" * 15, "${" * 100, "sort(" * 60 + "1" + ")" * 60, f"[{'1,' * 300}1]", "a," * 300,
]  # fmt: skip
_INTEGERS = st.integers(-3, 40).map(str) | st.integers(-(10**40), 10**40).map(str)
_FLOATS = st.floats().map(repr) | st.sampled_from(
    ["0.5", "0", "-1", "1e-300", "1e300", "1e999", "-inf", "inf", "nan", "NaN", "1e3", ".5"]
)
_NUMBERS = _INTEGERS | _FLOATS
_LISTS = st.recursive(
    _NUMBERS | st.sampled_from(["a", "null", "true", "'b c'"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(st.sampled_from(["a", "eps", "1", "null"]), inner, max_size=2).map(
            lambda items: "{" + ",".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=5,
)
_TEXT = st.text(max_size=12)
_ANYTHING = st.one_of(
    _NUMBERS, _LISTS, _TEXT, *map(st.sampled_from, (_HARMLESS, _GRAMMAR, _PATHS, _SECTIONS, _SIGNS, _LONG))
)
"""What may stand behind an equals sign."""

_FITTING: Mapping[type, st.SearchStrategy[str]] = {
    bool: st.sampled_from(["true", "false"]),
    int: _INTEGERS,
    float: _FLOATS | _INTEGERS,
    str: st.sampled_from([*_HARMLESS, *_PATHS]),
}
_UNKNOWN = _NUMBERS | st.sampled_from([*_HARMLESS, *_PATHS, *_SECTIONS])


_NEEDED = {"attack": ["run=nosuch"], "plan": ["consortium=nosuch"]}


@dataclass(frozen=True)
class Names:
    """What can stand before an equals sign: a program's settings with their defaults, and its groups' members."""

    settings: Mapping[str, Any]
    groups: Mapping[str, list[str]]


def names_of(*programs: str) -> Names:
    """Those of programs that take each other's settings."""
    found: dict[str, Any] = {}
    for program in programs:
        defaults = compose_run(_NEEDED.get(program, []), config_name=program)
        found.update({name: OmegaConf.select(defaults, name) for name in setting_names(program)})
    return Names(found, {group: choices(group) for program in programs for group in groups(program)})


@st.composite
def _misspelt(draw: st.DrawFn, name: str) -> str:
    place = draw(st.integers(0, len(name)))
    slip = draw(st.sampled_from(["", ".", "x", "[0]", "@a", "@a:b", " ", "é", "..", "_"]))
    return name[:place] + slip + name[place + 1 :]


@st.composite
def _fitting(draw: st.DrawFn, names: Names) -> str:
    """A setting with a value of its own kind."""
    name, default = draw(st.sampled_from(list(names.settings.items())))
    return f"{name}={draw(_FITTING.get(type(default), _UNKNOWN))}"


def arguments(names: Names) -> st.SearchStrategy[list[str]]:
    """Command lines: as a rule settings that there are, with values of the right kind, and sometimes anything."""
    keys = st.sampled_from(list(names.settings))
    sections = st.sampled_from([*{name.partition(".")[0] for name in names.settings}, "hydra.run.dir", "defaults"])
    chosen = [
        st.sampled_from(known).map(f"{group}={{}}".format) | _ANYTHING.map(f"{group}={{}}".format)
        for group, known in names.groups.items()
    ]
    odd = st.one_of(
        st.builds("{}={}".format, keys.flatmap(_misspelt) | sections, _ANYTHING),
        st.builds("{}{}={}".format, st.sampled_from(["+", "++", "~", "-", "--", " ", "=", "@"]), keys, _ANYTHING),
        st.sampled_from(["", " ", "-", "--nosuch", "=", "eps", "+", "~eps", "'", "@", "a@b:c", "\x00", "é"]) | _TEXT,
    )
    fitting, wrong = _fitting(names), st.builds("{}={}".format, keys, _ANYTHING)
    several = st.lists(st.one_of(fitting, fitting, fitting, wrong, *chosen), min_size=1, max_size=4)
    return st.one_of(several, several, several, st.lists(odd | fitting, min_size=1, max_size=2))
