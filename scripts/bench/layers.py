"""What each way of clipping costs for convolutions of many shapes, and which one the cost model picks.

    python scripts/bench/layers.py            # a table
    python scripts/bench/layers.py --fit      # and the constants of hbdp_fed/dpsgd/layers/cost.py that fit it best

*kept* are per-record gradients with their norms and weighted sum, *ghost* are norms by Gram matrices and one weighted
gradient; both in multiples of the batch's ordinary weight gradient, which back-propagation without privacy computes.
The last column says how much longer the picked way takes than the better one.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls
from torch import Tensor

from hbdp_fed.dpsgd.layers.contribution import Ghost
from hbdp_fed.dpsgd.layers.conv import kept_contribution, use_gram, weight_gradient, weighted_gradient
from hbdp_fed.dpsgd.layers.cost import gram_work, kept_work
from hbdp_fed.dpsgd.layers.gram import Geometry, convolution_norms


@dataclass(frozen=True)
class Shape:
    """One convolution: channels in and out, side of the image, axes, side of the kernel, stride, records."""

    inside: int
    outside: int
    side: int
    axes: int = 2
    kernel: int = 3
    stride: int = 1
    records: int = 64

    @property
    def geometry(self) -> Geometry:
        def every(value: int) -> tuple[int, ...]:
            return (value,) * self.axes

        padding = (self.kernel - 1) // 2 if self.stride == 1 else 0
        return Geometry(every(self.kernel), every(self.stride), every(padding), every(1), groups=1)

    def __str__(self) -> str:
        image, kernel = "x".join([str(self.side)] * self.axes), "x".join([str(self.kernel)] * self.axes)
        return f"{self.inside}->{self.outside} {image} kernel {kernel} stride {self.stride}"


SHAPES = (
    Shape(1, 16, 28), Shape(16, 32, 14), Shape(32, 64, 7),
    Shape(3, 64, 28), Shape(64, 128, 28), Shape(128, 128, 14), Shape(128, 256, 14), Shape(256, 256, 7),
    Shape(256, 256, 3), Shape(3, 16, 28), Shape(16, 32, 28), Shape(32, 32, 14), Shape(32, 64, 14), Shape(64, 64, 7),
    Shape(64, 64, 3), Shape(64, 64, 10), Shape(128, 128, 5), Shape(256, 512, 6), Shape(64, 64, 7, kernel=1),
    Shape(16, 16, 128, records=8), Shape(32, 32, 64, records=8), Shape(64, 64, 32, records=8),
    Shape(128, 128, 16, records=8), Shape(128, 128, 8, records=8), Shape(64, 32, 32, kernel=2, stride=2, records=8),
    Shape(16, 16, 32, axes=3, records=4), Shape(32, 32, 16, axes=3, records=4), Shape(64, 64, 8, axes=3, records=4),
    Shape(128, 128, 4, axes=3, records=4), Shape(128, 128, 2, axes=3, records=4),
    Shape(128, 64, 8, axes=3, kernel=2, stride=2, records=4),
)  # fmt: skip


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median over repeats, after a first call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


@dataclass(frozen=True)
class Measured:
    """Seconds of each way, the picked one, and the work that the cost model counts for both."""

    shape: Shape
    batch: float
    kept: float
    ghost: float
    picks_ghost: bool
    kept_work: tuple[float, ...]
    ghost_work: tuple[float, ...]

    @property
    def regret(self) -> float:
        return (self.ghost if self.picks_ghost else self.kept) / min(self.kept, self.ghost)


def measure(shape: Shape, device: torch.device, repeats: int) -> Measured:
    geometry, records = shape.geometry, shape.records
    inputs = torch.randn(records, shape.inside, *[shape.side] * shape.axes, device=device)
    weight = torch.randn(shape.outside, shape.inside, *geometry.kernel, device=device)
    positions = _positions(shape)
    errors = torch.randn(records, shape.outside, *positions, device=device)
    factors = torch.rand(records, dtype=torch.float64, device=device)

    def kept() -> Tensor:
        return kept_contribution(inputs, errors, weight, geometry, records).weighted_sum(factors)

    def ghost() -> Tensor:
        squared = convolution_norms(inputs, errors, records=records, geometry=geometry)
        return Ghost(squared, lambda f: weighted_gradient(inputs, errors, weight, geometry, f)).weighted_sum(factors)

    layer = {
        "weights": weight.numel(),
        "positions": math.prod(positions),
        "pixels": shape.side**shape.axes if geometry.unit_stride else None,
        "channels": (shape.inside, shape.outside),
        "kernel": geometry.kernel,
        "groups": 1,
    }
    too_large = max(math.prod(positions), layer["pixels"] or 0) > 2500
    return Measured(
        shape=shape,
        batch=seconds(lambda: weight_gradient(inputs, errors, weight, geometry), device, repeats),
        kept=seconds(kept, device, repeats),
        ghost=math.inf if too_large else seconds(ghost, device, repeats),
        picks_ghost=use_gram(inputs, errors, weight, geometry, records),
        kept_work=kept_work(layer["weights"], layer["positions"]),
        ghost_work=gram_work(**{name: layer[name] for name in ("positions", "pixels", "channels", "kernel", "groups")}),
    )


def _positions(shape: Shape) -> tuple[int, ...]:
    padding = shape.geometry.padding[0]
    return ((shape.side + 2 * padding - shape.kernel) // shape.stride + 1,) * shape.axes


def fit(measured: list[Measured]) -> dict[str, float]:
    """Nanoseconds of each kind of work by non-negative least squares over relative errors."""
    rows, wanted = [], []
    for m in measured:
        for seconds_taken, kept, ghost in (
            (m.kept - m.batch, m.kept_work, (0.0, 0.0)),
            (m.ghost - m.batch, (0.0, 0.0), m.ghost_work),
        ):
            if math.isfinite(seconds_taken) and seconds_taken > 0:
                nanoseconds = 1e9 * seconds_taken / m.shape.records
                rows.append(np.array([*kept, *ghost]) / nanoseconds)
                wanted.append(1.0)
    constants, _ = nnls(np.array(rows), np.array(wanted))
    names = ("kept_product", "kept_weight", "gram_product", "gram_entry")
    return dict(zip(names, map(float, constants), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    table = Table(title=f"Clipping one convolution on {device.type}, {arguments.threads} threads", title_justify="left")
    for name in ("convolution", "batch (ms)", "kept", "ghost", "picked", "loss"):
        table.add_column(name, justify="left" if name in {"convolution", "picked"} else "right")
    measured = [measure(shape, device, arguments.repeats) for shape in SHAPES]
    for m in measured:
        table.add_row(
            str(m.shape), f"{1e3 * m.batch:.2f}", f"{m.kept / m.batch:.2f}",
            f"{m.ghost / m.batch:.2f}" if math.isfinite(m.ghost) else "-",
            "ghost" if m.picks_ghost else "kept", f"{m.regret - 1:.0%}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    if arguments.fit:
        console.print({name: round(value, 4) for name, value in fit(measured).items()})


if __name__ == "__main__":
    main()
