"""The import rules, held by reading the syntax tree of every file. Nothing of the project is imported here.

Tables state the rules: who may import whom inside the project, who alone may import a library, which names nobody uses,
and how files are read so that none of them can run code. The rest of the file reads code and compares. Imports count
wherever they stand: in a function, under ``TYPE_CHECKING``, relative, through ``importlib.import_module`` or by an
attribute of an imported package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "hbdp_fed"
TREES = (LIBRARY, "simulations", "configs", "scripts")

BOTTOM = {"errors", "seeding", "strict_json", "types", "whole_files"}
EVERYTHING = {
    *BOTTOM, "privacy", "models", "data", "dpsgd", "training", "adversary", "screening", "federation", "audit",
    "planning",
}  # fmt: skip

# Package (or top-level module) of hbdp_fed -> the others of hbdp_fed that it may import, itself aside.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": BOTTOM,
    "seeding": BOTTOM,
    "strict_json": BOTTOM,
    "types": BOTTOM,
    "whole_files": BOTTOM,
    "privacy": BOTTOM,
    "models": BOTTOM,
    "data": BOTTOM,
    "dpsgd": BOTTOM | {"privacy", "models"},
    "training": BOTTOM | {"privacy", "models", "data", "dpsgd"},
    # The adversary computes a victim's clipped gradient, and has no way to the truth.
    "adversary": BOTTOM | {"privacy", "models", "dpsgd"},
    # A hospital's check of a model takes reference images that it is given, and has no way to anybody's records.
    "screening": BOTTOM | {"privacy", "models", "dpsgd"},
    # The tap is injected: the federation knows no attack and no audit.
    "federation": BOTTOM | {"privacy", "models", "data", "dpsgd", "training", "screening"},
    "audit": EVERYTHING - {"federation", "planning"},
    "planning": EVERYTHING - {"federation", "audit", "screening"},
    # Asks a released model about new images.
    "inference": BOTTOM | {"models", "data", "training"},
    # What people read of the audit's figures and of plans. Nothing of the library reads it.
    "report": BOTTOM | {"audit", "adversary", "dpsgd"},
    # Outside the library: the programs and the settings.
    "simulations": EVERYTHING | {"configs", "inference", "report"},
    "scripts": EVERYTHING | {"configs", "inference", "report", "simulations"},
    "configs": set(),
    # hbdp_fed/__init__.py, which runs before everything else.
    LIBRARY: set(),
}

# Library -> the only unit that imports it.
ONLY_IN = {"flwr": "federation", "ray": "federation", "hydra": "simulations", "omegaconf": "simulations"}

LEGACY_FLOWER_MODULES = ("flwr.client", "flwr.server.strategy")
LEGACY_FLOWER_NAMES = {"NumPyClient", "start_simulation"}
ONE_FILE_ONLY = "run_simulation"  # deprecated without a programmatic successor

GLOBAL_SEEDING = {
    "monai.utils.set_determinism",
    "numpy.random.seed",
    "random.seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.manual_seed",
    "torch.random.manual_seed",
    "torch.random.seed",
    "torch.seed",
}

# Whoever reads a file with one of these lets the file run code.
UNPICKLING = {
    "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "jsonpickle", "ray.cloudpickle",
    "pandas.read_pickle", "torch.serialization.load", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load",
    "yaml.unsafe_load_all", "yaml.FullLoader", "yaml.Loader", "yaml.UnsafeLoader",
}  # fmt: skip
# Safe only if called with this argument, written out.
SAFE_IF: dict[str, tuple[str, set[str]]] = {
    "numpy.load": ("allow_pickle", {"False"}),
    "torch.load": ("weights_only", {"True"}),
    "yaml.load": ("Loader", {"yaml.SafeLoader", "yaml.CSafeLoader"}),
    "yaml.load_all": ("Loader", {"yaml.SafeLoader", "yaml.CSafeLoader"}),
}


@dataclass(frozen=True)
class Reference:
    """A dotted name that code imports or reaches through what it imported, written out in full."""

    name: str
    line: int
    is_import: bool


@dataclass(frozen=True)
class Module:
    """One file's place in the project and its code."""

    path: str
    """Relative to the root, with forward slashes."""
    source: str

    @property
    def package(self) -> str:
        """The dotted package that relative imports start from."""
        return ".".join(Path(self.path).parent.parts)

    @property
    def unit(self) -> str:
        """The module's key in MAY_IMPORT."""
        parts = Path(self.path).with_suffix("").parts
        if parts[0] != LIBRARY:
            return parts[0]
        return LIBRARY if parts[1] == "__init__" else parts[1]

    @property
    def in_library(self) -> bool:
        return self.path.startswith(LIBRARY + "/")


def absolute(module: Module, name: str, level: int) -> str:
    """``name`` as written after ``level`` dots, in full."""
    if level == 0:
        return name
    package = module.package.split(".")
    base = package[: len(package) - level + 1]
    return ".".join([*base, name] if name else base) or "(beyond the top-level package)"


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """``t.random.seed`` in full if its first name was imported, else None."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return None
    return ".".join([names[node.id], *reversed(attributes)])


def imports(module: Module, tree: ast.Module) -> Iterator[tuple[Reference, str, str]]:
    """Every import statement's target, the local name it binds, and the full name behind that."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.split(".")[0]
                bound, meaning = (alias.asname, alias.name) if alias.asname else (head, head)
                yield Reference(alias.name, node.lineno, is_import=True), bound, meaning
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node.module or "", node.level)
            for alias in node.names:
                name = base if alias.name == "*" else f"{base}.{alias.name}"
                yield Reference(name, node.lineno, is_import=True), alias.asname or alias.name, name


def dynamic_import(module: Module, node: ast.Call, names: dict[str, str]) -> str | None:
    """What a call of import_module or __import__ imports ("" if not a literal); None for any other call."""
    is_builtin = isinstance(node.func, ast.Name) and node.func.id == "__import__"
    if not is_builtin and dotted(node.func, names) != "importlib.import_module":
        return None
    target = node.args[0] if node.args else None
    if not isinstance(target, ast.Constant) or not isinstance(target.value, str):
        return ""
    name = target.value.lstrip(".")
    return absolute(module, name, level=len(target.value) - len(name))


@dataclass(frozen=True)
class Contents:
    """What the rules need to know of a file."""

    references: tuple[Reference, ...]
    plain_names: tuple[tuple[str, int], ...]
    """Every bare name that is read, with its line."""
    unreadable_imports: tuple[int, ...]
    """Lines that import a module whose name is not a literal."""
    arguments: tuple[tuple[str, int, str, str], ...]
    """Of every call of an imported name: that name, the line, and a keyword with its literal or dotted value."""


@cache
def read(module: Module) -> Contents:
    tree = ast.parse(module.source, filename=module.path)
    found = list(imports(module, tree))
    references = [reference for reference, _, _ in found]
    names = {bound: meaning for _, bound, meaning in found}
    plain_names: list[tuple[str, int]] = []
    unreadable: list[int] = []
    arguments: list[tuple[str, int, str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := dotted(node, names)):
            references.append(Reference(name, node.lineno, is_import=False))
        if isinstance(node, ast.Name):
            plain_names.append((node.id, node.lineno))
        if isinstance(node, ast.Call) and (name := dotted(node.func, names)):
            for keyword in node.keywords:
                value = dotted(keyword.value, names) or ast.unparse(keyword.value)
                arguments.append((name, node.func.lineno, keyword.arg or "**", value))
        if isinstance(node, ast.Call) and (name := dynamic_import(module, node, names)) is not None:
            if name:
                references.append(Reference(name, node.lineno, is_import=True))
            else:
                unreadable.append(node.lineno)
    return Contents(tuple(references), tuple(plain_names), tuple(unreadable), tuple(arguments))


def unit_of(name: str) -> str | None:
    """The unit that a full name belongs to; None outside the project and for a name of hbdp_fed itself."""
    head, *rest = name.split(".")
    if head != LIBRARY:
        return head if head in MAY_IMPORT else None
    if not rest or (rest[0].startswith("__") and rest[0].endswith("__")):
        return None
    return rest[0]


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def layer_violations(module: Module) -> Iterator[str]:
    """Imports inside the project that MAY_IMPORT does not list."""
    if module.unit not in MAY_IMPORT:
        yield f"{module.path}: '{module.unit}' is not in the table MAY_IMPORT: add it with what it may import"
        return
    allowed = MAY_IMPORT[module.unit]
    for reference in read(module).references:
        target = unit_of(reference.name)
        if target in (None, module.unit) or target in allowed:
            continue
        known = ", ".join(sorted(allowed)) or "nothing of the project"
        yield (
            f"{module.path}:{reference.line}: {module.unit} may not import {target}"
            f" ({reference.name}); it may import: {known}"
        )


def library_violations(module: Module) -> Iterator[str]:
    """Libraries imported outside the one place that may."""
    for reference in read(module).references:
        owner = ONLY_IN.get(reference.name.split(".")[0])
        if owner and owner != module.unit:
            yield f"{module.path}:{reference.line}: only {owner} may import {reference.name}"
    if module.in_library:
        for line in read(module).unreadable_imports:
            yield f"{module.path}:{line}: name the module with a literal string, so that the rules can see it"


def legacy_flower_violations(module: Module) -> Iterator[str]:
    """Flower's old interfaces."""
    for reference in read(module).references:
        parts = reference.name.split(".")
        old_module = any(is_within(reference.name, old) for old in LEGACY_FLOWER_MODULES)
        if parts[0] == "flwr" and (old_module or LEGACY_FLOWER_NAMES & set(parts)):
            yield f"{module.path}:{reference.line}: {reference.name} is Flower's legacy API"


def uses_run_simulation(module: Module) -> bool:
    return any(
        is_within(reference.name, "flwr") and reference.name.endswith("." + ONE_FILE_ONLY)
        for reference in read(module).references
    )


def quietness_violations(module: Module) -> Iterator[str]:
    """In the library: printing and global random state."""
    if not module.in_library:
        return
    for name, line in read(module).plain_names:
        if name == "print":
            yield f"{module.path}:{line}: the library logs, it does not print"
    for reference in read(module).references:
        if reference.name in GLOBAL_SEEDING:
            yield f"{module.path}:{reference.line}: {reference.name} seeds globally; take a torch.Generator instead"


def unpickling_violations(module: Module) -> Iterator[str]:
    """What would let a file, or what came over the wire, run code."""
    contents = read(module)
    for name, line in contents.plain_names:
        if name in {"eval", "exec"}:
            yield f"{module.path}:{line}: {name} runs what it reads"
    for reference in contents.references:
        if any(is_within(reference.name, unsafe) for unsafe in UNPICKLING):
            yield f"{module.path}:{reference.line}: {reference.name} lets a file run code"
    for name, (key, values) in SAFE_IF.items():
        safe = sum(found == name and k == key and value in values for found, _, k, value in contents.arguments)
        uses = [reference.line for reference in contents.references if reference.name == name]
        if len(uses) > safe:
            how = " or ".join(f"{key}={value}" for value in sorted(values))
            yield f"{module.path}: {name} is used {len(uses)} times (lines {uses}), {safe} of them with {how}"


RULES = (
    layer_violations, library_violations, legacy_flower_violations, quietness_violations, unpickling_violations,
)  # fmt: skip


def project_modules() -> list[Module]:
    return [
        Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for tree in TREES
        for path in sorted((ROOT / tree).rglob("*.py"))
    ]


# The project itself.


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.removesuffix("_violations"))
def test_project_keeps_the_rule(rule) -> None:
    found = sorted({violation for module in project_modules() for violation in rule(module)})
    assert not found, "\n" + "\n".join(found)


def test_run_simulation_is_used_in_one_file_at_most() -> None:
    files = [module.path for module in project_modules() if uses_run_simulation(module)]
    assert len(files) <= 1, f"{ONE_FILE_ONLY} is deprecated, keep it in one file: {files}"


def test_the_project_was_found() -> None:
    assert f"{LIBRARY}/types.py" in {module.path for module in project_modules()}


def test_table_has_no_cycle_above_the_bottom() -> None:
    from graphlib import TopologicalSorter

    TopologicalSorter({unit: allowed - BOTTOM - {unit} for unit, allowed in MAY_IMPORT.items()}).prepare()


def test_table_speaks_of_known_units_only() -> None:
    for unit, allowed in MAY_IMPORT.items():
        assert allowed <= set(MAY_IMPORT), f"{unit} lists unknown units: {allowed - set(MAY_IMPORT)}"


# The checker itself.


def violations(path: str, source: str) -> list[str]:
    return [violation for rule in RULES for violation in rule(Module(path, source))]


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("hbdp_fed/adversary/a.py", "import hbdp_fed.data.contract", "adversary may not import data"),
        ("hbdp_fed/adversary/a.py", "from hbdp_fed import data", "adversary may not import data"),
        ("hbdp_fed/adversary/a.py", "from hbdp_fed.data import *", "adversary may not import data"),
        ("hbdp_fed/adversary/a.py", "def f():\n    from hbdp_fed.training import loop", "a.py:2: adversary may not"),
        (
            "hbdp_fed/adversary/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hbdp_fed.audit.risk import Risk",
            "a.py:3: adversary may not import audit",
        ),
        ("hbdp_fed/adversary/deep/a.py", "from ...data import contract", "adversary may not import data"),
        ("hbdp_fed/adversary/__init__.py", "from .. import federation", "adversary may not import federation"),
        ("hbdp_fed/adversary/a.py", "import hbdp_fed\nhbdp_fed.data.load()", "a.py:2: adversary may not import data"),
        ("hbdp_fed/adversary/a.py", "import importlib as i\ni.import_module('hbdp_fed.data')", "may not import data"),
        (
            "hbdp_fed/adversary/a.py",
            "from importlib import import_module as m\nm('..data', __package__)",
            "import data",
        ),
        ("hbdp_fed/adversary/a.py", "__import__('hbdp_fed.data')", "adversary may not import data"),
        (
            "hbdp_fed/adversary/a.py",
            "import importlib\nimportlib.import_module(name)",
            "name the module with a literal",
        ),
        ("hbdp_fed/dpsgd/a.py", "from hbdp_fed.data.contract import Data", "dpsgd may not import data"),
        ("hbdp_fed/privacy/a.py", "from hbdp_fed.models import registry", "privacy may not import models"),
        ("hbdp_fed/types.py", "from hbdp_fed.models import registry", "types may not import models"),
        ("hbdp_fed/__init__.py", "from hbdp_fed.models import registry", "hbdp_fed may not import models"),
        ("hbdp_fed/federation/a.py", "from hbdp_fed.audit import report", "federation may not import audit"),
        ("hbdp_fed/audit/a.py", "from hbdp_fed.federation import engine", "audit may not import federation"),
        ("hbdp_fed/planning/a.py", "import simulations.run", "planning may not import simulations"),
        ("hbdp_fed/data/a.py", "import configs", "data may not import configs"),
        ("configs/__init__.py", "import hbdp_fed.types", "configs may not import types"),
        ("hbdp_fed/data/a.py", "import hbdp_fed.newcomer", "data may not import newcomer"),
        ("hbdp_fed/newcomer/a.py", "", "'newcomer' is not in the table MAY_IMPORT"),
        ("hbdp_fed/training/a.py", "import flwr", "only federation may import flwr"),
        ("simulations/a.py", "def f():\n    import ray", "only federation may import ray"),
        ("scripts/a.py", "from flwr.serverapp import Grid", "only federation may import flwr.serverapp.Grid"),
        ("hbdp_fed/federation/a.py", "from omegaconf import DictConfig", "only simulations may import omegaconf"),
        ("scripts/a.py", "import hydra", "only simulations may import hydra"),
        ("hbdp_fed/federation/a.py", "from flwr.client import ClientApp", "legacy"),
        ("hbdp_fed/federation/a.py", "from flwr.server.strategy import FedAvg", "legacy"),
        ("hbdp_fed/federation/a.py", "import flwr as fl\nclass C(fl.clientapp.NumPyClient): ...", "a.py:2: "),
        ("hbdp_fed/federation/a.py", "from flwr.simulation import start_simulation", "legacy"),
        ("hbdp_fed/audit/a.py", "print('done')", "does not print"),
        ("hbdp_fed/audit/a.py", "show = print", "does not print"),
        ("hbdp_fed/models/a.py", "import torch as t\nt.manual_seed(0)", "a.py:2: torch.manual_seed seeds globally"),
        ("hbdp_fed/models/a.py", "from torch import manual_seed\nmanual_seed(0)", "torch.manual_seed seeds globally"),
        ("hbdp_fed/models/a.py", "import numpy as np\nnp.random.seed(0)", "numpy.random.seed seeds globally"),
        ("hbdp_fed/models/a.py", "from numpy import random as r\nr.seed(0)", "numpy.random.seed seeds globally"),
        ("hbdp_fed/models/a.py", "def f():\n    import random\n    random.seed(0)", "random.seed seeds globally"),
        ("hbdp_fed/models/a.py", "def f():\n    import pickle", "a.py:2: pickle lets a file run code"),
        ("hbdp_fed/models/a.py", "from joblib import load", "joblib.load lets a file run code"),
        ("simulations/a.py", "from yaml import unsafe_load", "yaml.unsafe_load lets a file run code"),
        ("simulations/a.py", "import yaml\nyaml.load(f, Loader=yaml.Loader)", "yaml.Loader lets a file run code"),
        (
            "simulations/a.py",
            "import yaml\nyaml.load(f, L)",
            "0 of them with Loader=yaml.CSafeLoader or",
        ),
        ("hbdp_fed/data/a.py", "import numpy as np\nnp.load(f)", "numpy.load is used 1 times (lines [2]), 0 of them"),
        (
            "hbdp_fed/data/a.py",
            "import numpy as np\nnp.load(f, allow_pickle=True)",
            "0 of them with allow_pickle=False",
        ),
        ("hbdp_fed/data/a.py", "import numpy as np\nread = np.load", "0 of them with allow_pickle=False"),
        ("hbdp_fed/data/a.py", "from numpy import load", "0 of them with allow_pickle=False"),
        (
            "hbdp_fed/data/a.py",
            "import torch\ntorch.load(f)\ntorch.load(f, weights_only=True)",
            "1 of them with weights",
        ),
        ("scripts/a.py", "eval(open('a').read())", "eval runs what it reads"),
    ],
)
def test_checker_finds(path: str, source: str, message: str) -> None:
    found = violations(path, source)
    assert any(message in violation for violation in found), found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hbdp_fed/adversary/a.py", "from hbdp_fed import __version__, dpsgd, types\nfrom . import other"),
        ("hbdp_fed/adversary/a.py", "from ..models.registry import build\nbuild()"),
        ("hbdp_fed/adversary/a.py", "data = training = None\ndata.load(training)"),
        ("hbdp_fed/federation/a.py", "import flwr.clientapp\nfrom flwr.serverapp.strategy import FedAvg\nimport ray"),
        ("hbdp_fed/models/a.py", "import torch\ntorch.Generator().manual_seed(0)\ntorch.randn(2).print()"),
        ("hbdp_fed/models/a.py", "import importlib\nimportlib.import_module('torch')"),
        ("hbdp_fed/models/a.py", "'''import flwr; print(1)'''\nimport flwr_extras"),
        ("simulations/a.py", "import hydra, configs\nfrom hbdp_fed.federation import engine\nprint(1)"),
        ("scripts/a.py", "from simulations import run\nimport torch\ntorch.manual_seed(0)\nprint(1)"),
        (
            "simulations/a.py",
            "import yaml\nfrom yaml import SafeLoader as S\nyaml.load(f, Loader=S)",
        ),
        (
            "hbdp_fed/data/a.py",
            "import numpy as np, torch\nnp.load(f, allow_pickle=False)\ntorch.load(f, weights_only=True)",
        ),
        ("hbdp_fed/models/a.py", "model.eval()\ntorch = json = None\ntorch.load(f)"),
    ],
)
def test_checker_lets_pass(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("from flwr.simulation import run_simulation", True),
        ("def f():\n    import flwr.simulation as s\n    s.run_simulation()", True),
        ("from hbdp_fed.federation.engine import run_simulation", False),
        ("def run_simulation(): ...", False),
    ],
)
def test_checker_sees_run_simulation(source: str, used: bool) -> None:
    assert uses_run_simulation(Module("hbdp_fed/federation/a.py", source)) is used
