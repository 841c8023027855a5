"""The benchmark of training steps: it compares like with like, and its figures are what it says they are."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd import record_losses, seeded_noise
from hbdp_fed.training import LocalSettings, Progress, train_locally
from hbdp_fed.types import DpSgdParams, OptimizerSettings

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "bench"
CPU = torch.device("cpu")

KEYS = {
    "model", "mode", "device", "precision", "ratio_to_sgd", "peak_memory_ratio", "batch", "step_ms", "ratio_min",
    "ratio_max", "peak_memory_mb", "threads", "processor", "torch", "opacus", "error",
}  # fmt: skip
FIGURES = ("ratio_to_sgd", "peak_memory_ratio", "step_ms", "ratio_min", "ratio_max", "peak_memory_mb")
MODES = [
    ("sgd", "float32"),
    ("hbdp", "float32"),
    ("hbdp_halved", "float32"),
    ("opacus_hooks", "float32"),
    ("opacus_ew", "float32"),
    ("opacus_ghost", "float32"),
    ("opacus_functorch", "float32"),
    ("torch_func", "float32"),
    ("sgd", "bf16"),
    ("hbdp", "bf16"),
]
PRIVATE = [mode for mode in MODES if mode[0] != "sgd"]


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts' modules by name, imported as they find each other when they are run by path."""
    names = ("cases", "memory", "modes", "results", "trial", "dpsgd")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        patch.setenv("KINETO_LOG_LEVEL", "99")
        modules = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        # No test looks at how long a step takes.
        patch.setattr(modules.trial, "TIMED_SECONDS", 0.01)
        yield modules
    for name in names:
        del sys.modules[name]


def mode_called(bench: SimpleNamespace, name: str, precision: str = "float32") -> Any:
    (mode,) = (mode for mode in bench.modes.MODES if (mode.name, mode.precision) == (name, precision))
    return mode


def setting(bench: SimpleNamespace) -> Any:
    return bench.results.Setting(device="cpu", processor="a processor", threads=1, torch="2", opacus="1")


def silent(note: str) -> None:
    pass


def smoke(bench: SimpleNamespace, output: Path, *more: str) -> list[dict[str, Any]]:
    words = ["--models", "cnn", "--batch", "4", "--repeats", "1", "--threads", "1", "--device", "cpu"]
    bench.dpsgd.main([*words, "--output", str(output), *more])
    rows: list[dict[str, Any]] = json.loads(output.read_text())
    return rows


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smoke_run_leaves_a_row_with_every_key_for_every_mode(bench: SimpleNamespace, tmp_path: Path) -> None:
    rows = smoke(bench, tmp_path / "new" / "bench.json")
    assert [(row["mode"], row["precision"]) for row in rows] == MODES
    assert all(set(row) == KEYS for row in rows)
    assert all((row["model"], row["batch"], row["device"], row["threads"]) == ("cnn", 4, "cpu", 1) for row in rows)
    assert all(row["error"] is None and row[figure] > 0 for row in rows for figure in FIGURES)
    assert rows[0]["ratio_to_sgd"] == rows[0]["peak_memory_ratio"] == 1.0


def test_only_resume_keeps_what_is_there(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(case: Any, *_: Any, **__: Any) -> list[Any]:
        measured.append(case.name)
        return [fake_row(bench, case)]

    monkeypatch.setattr(bench.dpsgd, "measure", measure)
    path = tmp_path / "bench.json"
    cases = [bench.cases.CASES[name] for name in ("cnn", "unet2d", "unet3d")]

    def run(chosen: list[Any], *, resume: bool) -> list[str]:
        measured.clear()
        bench.dpsgd.run(chosen, setting(bench), repeats=1, output=path, resume=resume)
        return list(measured)

    assert run(cases[:1], resume=False) == ["cnn"]
    assert run(cases[:2], resume=True) == ["unet2d"]
    assert [row.model for row in bench.results.read_rows(path)] == ["cnn", "unet2d"]
    # Another batch is another measurement.
    assert run([replace(cases[0], batch=3)], resume=True) == ["cnn"]
    assert run(cases[2:], resume=False) == ["unet3d"]
    assert [row.model for row in bench.results.read_rows(path)] == ["unet3d"]


def test_interrupted_run_keeps_the_models_that_are_done(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(case: Any, *_: Any, **__: Any) -> list[Any]:
        if case.name != "cnn":
            raise KeyboardInterrupt
        return [fake_row(bench, case)]

    monkeypatch.setattr(bench.dpsgd, "measure", measure)
    cases = [bench.cases.CASES[name] for name in ("cnn", "unet2d")]
    with pytest.raises(KeyboardInterrupt):
        bench.dpsgd.run(cases, setting(bench), repeats=1, output=tmp_path / "bench.json", resume=False)
    assert [row.model for row in bench.results.read_rows(tmp_path / "bench.json")] == ["cnn"]


def fake_row(bench: SimpleNamespace, case: Any, **changes: Any) -> Any:
    turns = [{bench.modes.BASELINE: 0.5}]
    row = bench.trial.summarise(
        case, setting(bench), bench.modes.BASELINE, peaks={bench.modes.BASELINE: 7}, turns=turns, error=None
    )
    return replace(row, **changes)


def test_markdown_is_a_table_of_models_by_modes(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cnn, unet = bench.cases.CASES["cnn"], bench.cases.CASES["unet2d"]
    rows = [
        fake_row(bench, cnn),
        fake_row(bench, cnn, mode="hbdp", precision="bf16", ratio_to_sgd=1.234, peak_memory_ratio=2.0),
        fake_row(bench, unet),
        fake_row(bench, unet, mode="hbdp", precision="bf16", error="no such layer", ratio_to_sgd=None),
    ]
    bench.results.write_rows(tmp_path / "bench.json", rows)
    bench.dpsgd.main(["--markdown", "--output", str(tmp_path / "bench.json")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("a processor, cpu, 1 threads, PyTorch 2, Opacus 1:")
    assert printed[2:] == [
        "| model | batch | sgd | hbdp, bf16 |",
        "|---|---:|---:|---:|",
        "| cnn | 64 | 1.00 (1.00) | 1.23 (2.00) |",
        "| unet2d | 8 | 1.00 (1.00) | - |",
    ]


# --- Like with like --------------------------------------------------------------------------------------------------


def small(bench: SimpleNamespace, name: str) -> Any:
    shapes = {"cnn": (1, 28, 28), "unet2d": (1, 16, 16)}
    return replace(bench.cases.CASES[name], batch=4, image_shape=shapes[name])


def record_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Every record's gradient, (b, all parameters in one row), one back-propagation each."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = record_losses(model(image[None]), label[None]).sum()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows)


def moved(bench: SimpleNamespace, case: Any, mode: Any, recipe: Any) -> Tensor:
    """What one step changed, all parameters in one row."""
    model = bench.cases.fresh_model(case, CPU)
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    mode.build(model, bench.cases.random_batch(case, CPU), recipe)()
    return torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)])


def expected_move(bench: SimpleNamespace, case: Any, *, max_grad_norm: float | None) -> tuple[Tensor, float]:
    """Minus the mean gradient and the norm that records are clipped to; without one, half of the four are clipped."""
    batch = bench.cases.random_batch(case, CPU)
    rows = record_gradients(bench.cases.fresh_model(case, CPU), batch.images, batch.labels)
    norms = rows.norm(dim=1)
    limit = float(norms.sort().values[1:3].mean()) if max_grad_norm is None else max_grad_norm
    return -((limit / norms).clamp(max=1.0) @ rows) / len(rows), limit


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    ("model", "mode"),
    [
        *(("cnn", mode) for mode in PRIVATE),
        # Expanded weights know no transposed convolution, and bf16 says nothing exact about so deep a net.
        *(("unet2d", mode) for mode in PRIVATE if mode[0] != "opacus_ew" and mode[1] == "float32"),
    ],
)
def test_every_private_mode_takes_the_same_step(bench: SimpleNamespace, model: str, mode: tuple[str, str]) -> None:
    case = small(bench, model)
    expected, limit = expected_move(bench, case, max_grad_norm=None)
    recipe = bench.modes.Recipe(noise_multiplier=0.0, max_grad_norm=limit, learning_rate=1.0)
    found = moved(bench, case, mode_called(bench, *mode), recipe)
    assert error(found, expected) < (1e-4 if mode[1] == "float32" else 0.1)


@pytest.mark.parametrize("model", ["cnn", "unet2d"])
def test_plain_sgd_takes_the_step_without_clipping(bench: SimpleNamespace, model: str) -> None:
    case = small(bench, model)
    expected, _ = expected_move(bench, case, max_grad_norm=1e9)
    recipe = bench.modes.Recipe(learning_rate=1.0)
    assert error(moved(bench, case, bench.modes.BASELINE, recipe), expected) < 1e-4
    assert error(moved(bench, case, mode_called(bench, "sgd", "bf16"), recipe), expected) < 0.3


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("mode", PRIVATE, ids="-".join)
def test_every_private_mode_adds_the_same_noise(bench: SimpleNamespace, mode: tuple[str, str]) -> None:
    # So much of it that the gradient is nothing beside it.
    case = small(bench, "cnn")
    recipe = bench.modes.Recipe(noise_multiplier=100.0, max_grad_norm=0.5, learning_rate=1.0)
    noise = moved(bench, case, mode_called(bench, *mode), recipe) * case.batch
    assert float(noise.std()) == pytest.approx(50.0, rel=0.02)  # 24 thousand draws: 0.5 % is one deviation


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_own_mode_is_what_a_hospital_trains_with(bench: SimpleNamespace, precision: str) -> None:
    case, recipe, steps = small(bench, "cnn"), bench.modes.Recipe(), 3
    batch = bench.cases.random_batch(case, CPU)
    model = bench.cases.fresh_model(case, CPU)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    step = mode_called(bench, "hbdp", precision).build(model, batch, recipe)
    for _ in range(steps):
        step()
    trained = train_locally(
        architecture=case.spec,
        weights=start,
        images=batch.images,
        labels=batch.labels,
        # A sample rate of 1 draws all records in every step.
        mechanism=DpSgdParams(recipe.noise_multiplier, recipe.max_grad_norm, sample_rate=1.0, steps=steps),
        steps=steps,
        settings=LocalSettings(
            optimizer=OptimizerSettings("sgd", recipe.learning_rate, recipe.momentum), precision=precision
        ),
        progress=Progress(done=0, planned=steps),
        noise=seeded_noise(torch.Generator().manual_seed(bench.modes.NOISE_SEED)),
        batch_generator=torch.Generator().manual_seed(0),
        augmentation_generator=torch.Generator().manual_seed(0),
        device=CPU,
    )
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), (start[name].double() + trained.delta[name]).float())


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_meter_equals_the_sum_of_what_is_held_at_the_fullest_moment(bench: SimpleNamespace) -> None:
    def work() -> None:
        a = torch.empty(1_000_000)  # 4 MB held
        b = torch.empty(500_000)  # 6 MB
        del a  # 2 MB
        c = torch.empty(750_000)  # 5 MB
        d = c + c  # 8 MB
        del b, d  # 3 MB
        torch.empty(1_000_000)  # 7 MB

    assert bench.memory.peak_bytes(work, CPU) == 8_000_000


def test_meter_sees_what_an_operator_holds_inside(bench: SimpleNamespace) -> None:
    scores, labels = torch.ones(1000, 1000), torch.zeros(1000, dtype=torch.int64)
    # Cross-entropy makes a matrix of logarithms (4 MB) and drops it again.
    assert 4_000_000 <= bench.memory.peak_bytes(partial(functional.cross_entropy, scores, labels), CPU) < 4_100_000


def test_meter_gives_no_credit_for_what_was_there_before(bench: SimpleNamespace) -> None:
    held = [torch.empty(1_000_000)]

    def work() -> None:
        held.pop()
        held.append(torch.empty(250_000))

    assert bench.memory.peak_bytes(work, CPU) == 1_000_000
    # Nor is it fooled by addresses that it saw in an earlier measurement.
    assert bench.memory.peak_bytes(work, CPU) == 1_000_000


@pytest.mark.parametrize(
    ("events", "peak"),
    [([], 0), ([(1, 5), (2, 7), (1, -5), (3, 6)], 13), ([(9, -4), (1, 5)], 5), ([(1, 5), (1, -5), (1, 6)], 6)],
)
def test_peak_is_the_highest_running_total(bench: SimpleNamespace, events: list[tuple[int, int]], peak: int) -> None:
    assert bench.memory.peak_of(events) == peak


def test_momentum_counts_and_weights_do_not(bench: SimpleNamespace) -> None:
    model = nn.Linear(1000, 1000, bias=False)  # 4 MB of weights
    batch = bench.cases.Batch(torch.rand(1, 1000), torch.zeros(1, dtype=torch.int64))

    def two_steps(mode: Any) -> None:
        step = mode.build(model, batch, bench.modes.Recipe())
        step()
        step()

    # Gradient and momentum, and some rows of a thousand numbers.
    plain = bench.memory.peak_bytes(partial(two_steps, bench.modes.BASELINE), CPU)
    assert 8_000_000 <= plain < 8_050_000
    # The float64 masters, their momentum and their gradient are twice as large each.
    own = bench.memory.peak_bytes(partial(two_steps, mode_called(bench, "hbdp")), CPU)
    assert own >= 24_000_000


# --- Figures and failures --------------------------------------------------------------------------------------------


def test_ratio_is_the_median_of_the_ratios_within_turns(bench: SimpleNamespace) -> None:
    sgd, other = bench.modes.BASELINE, mode_called(bench, "hbdp")
    # The machine was slow in the second turn, for both.
    turns = [{sgd: 0.1, other: 0.2}, {sgd: 1.0, other: 3.0}, {sgd: 0.1, other: 0.5}]
    row = bench.trial.summarise(
        bench.cases.CASES["cnn"],
        setting(bench),
        other,
        peaks={sgd: 2_000_000, other: 3_000_000},
        turns=turns,
        error=None,
    )
    assert (row.ratio_to_sgd, row.ratio_min, row.ratio_max) == pytest.approx((3.0, 2.0, 5.0))
    assert row.step_ms == pytest.approx(500.0)
    assert (row.peak_memory_mb, row.peak_memory_ratio) == (3.0, 1.5)


@pytest.mark.parametrize(
    "failing_step", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(4, marks=pytest.mark.slow)]
)
def test_mode_that_fails_is_listed_with_the_reason_and_stops_nobody(bench: SimpleNamespace, failing_step: int) -> None:
    """It may fail when it is prepared, when its memory is measured, or later."""
    steps = 0

    def build(model: nn.Module, batch: Any, recipe: Any) -> Callable[[], None]:
        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == failing_step:
                raise torch.OutOfMemoryError("out of memory\nTried to allocate more")

        if failing_step == 0:
            raise NotImplementedError("no rule for this layer")
        return step

    failing = bench.modes.Mode("failing", "float32", build)
    last = mode_called(bench, "torch_func")
    case = replace(small(bench, "cnn"), batch=2)
    rows = bench.trial.measure(case, setting(bench), [bench.modes.BASELINE, failing, last], repeats=2, say=silent)
    reason = "NotImplementedError: no rule for this layer" if failing_step == 0 else "OutOfMemoryError: out of memory"
    assert [row.error for row in rows] == [None, reason, None]
    assert all(getattr(rows[1], figure) is None for figure in FIGURES)
    assert all(getattr(row, figure) > 0 for row in (rows[0], rows[2]) for figure in FIGURES)


def test_without_plain_sgd_times_are_kept_and_ratios_are_not(bench: SimpleNamespace) -> None:
    sgd, other = bench.modes.BASELINE, mode_called(bench, "hbdp")
    row = bench.trial.summarise(
        bench.cases.CASES["cnn"], setting(bench), other, peaks={sgd: None, other: 5}, turns=[{other: 0.25}], error=None
    )
    assert (row.step_ms, row.ratio_to_sgd, row.peak_memory_ratio) == (250.0, None, None)
