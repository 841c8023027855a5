"""A hospital's process is started often and has to be ready soon: it loads nothing that a step does not need."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("opacus", "scipy", "sklearn", "matplotlib", "monai", "hydra", "ray", "torchmetrics", "torch._dynamo")

PROGRAM = """
import json, sys, torch
from hbdp_fed.federation.client_app import make_client_app
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.training import LocalSettings, Progress, train_locally
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings

make_client_app("{}")
spec, draw = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4}), torch.Generator()
for name in ("sgd", "adamw", "nadam"):
    train_locally(
        architecture=spec, weights=initial_weights(build_model(spec), draw), images=torch.rand(8, 1, 12, 12),
        labels=torch.zeros(8, dtype=torch.long), mechanism=DpSgdParams(1.0, 1.0, 0.5, 2), steps=2,
        settings=LocalSettings(optimizer=OptimizerSettings(name, 0.1, 0.9)), progress=Progress(0, 2),
        noise=seeded_noise(draw), batch_generator=draw, augmentation_generator=draw, device=torch.device("cpu"),
    )
print(json.dumps(sorted(sys.modules)))
"""


def test_a_step_loads_no_accountant_no_pictures_and_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "torch.optim.adamw" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_real_hospitals_app_loads_no_accountant_before_it_needs_one() -> None:
    program = "import json, sys, hbdp_fed.federation.own_clientapp; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "hbdp_fed.federation.hospital" in loaded
    assert loaded.isdisjoint(HEAVY)
