"""The command that measures gradient inversion: what it prints, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from scripts.attacks.gradient_inversion import main, scored
from tests.adversary.conftest import smooth_images

QUICK = ("--iterations", "1", "--widths", "0", "--tv-weights", "0")


def test_a_row_for_every_record_and_the_medians(hbdp_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--root", str(hbdp_data), "--records", "2", "--batches", "2", "--first", "5", *QUICK])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split("|")[1].strip() for line in lines if re.match(r"\| \d", line)] == ["5", "5", "6", "6"]
    assert any(line.startswith("| median |") for line in lines)
    assert lines[-1].endswith("of 4 records at 30 dB or more")


def test_a_setting_that_cannot_be_used_ends_with_code_two(hbdp_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(hbdp_data), "--objective", "l1"]) == 2
    assert "adversary.gradient_inversion.objective" in capsys.readouterr().err


def test_scores_are_those_of_the_matched_record() -> None:
    images, public = smooth_images(3, size=16, seed=1), smooth_images(9, size=16, seed=2)
    found = images.flip(0).clamp(0.0, 0.99)
    scores = scored(found, images, public)
    assert all(one.ssim > 0.99 and one.psnr > 30.0 for one in scores)
    expected = -10 * torch.log10((public.mean(dim=0) - images).square().flatten(start_dim=1).mean(dim=1))
    torch.testing.assert_close(torch.tensor([one.mean_psnr for one in scores]), expected)
