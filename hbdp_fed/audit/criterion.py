"""What counts as a success: which reconstruction shows a patient, and which merely an image of the kind."""

from __future__ import annotations

from dataclasses import dataclass

from hbdp_fed.errors import SettingError

SSIM_THRESHOLD = 0.8
"""Above this a reconstruction shows the patient's image rather than an image of its kind."""


@dataclass(frozen=True)
class Criterion:
    """When a record counts as rebuilt: at an SSIM above the threshold and above all that its baselines score.

    Attributes:
        ssim: The threshold that decides, in (0, 1).
        also: Further thresholds in (0, 1), at which success rates are reported beside it.

    Raises:
        SettingError: for a threshold that is not in (0, 1).
    """

    ssim: float = SSIM_THRESHOLD
    also: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for threshold in (self.ssim, *self.also):
            if not 0 < threshold < 1:
                raise SettingError(
                    "adversary.thresholds", f"an SSIM to exceed lies strictly between 0 and 1, got {threshold}"
                )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """All of them, ascending and each once."""
        return tuple(sorted({self.ssim, *self.also}))

    def in_words(self) -> str:
        """The rule as a report states it."""
        return (
            f"SSIM > {self.ssim:g} with the original, and more than the mean public image, every public image and "
            "every other patient's image in the audit reach; reconstructions matched one to one"
        )


DEFAULT_CRITERION = Criterion()
"""SSIM > 0.8 and above the baselines, with no further threshold."""
