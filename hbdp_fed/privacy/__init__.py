"""What a budget costs: accounting, calibration, and a hospital's plan."""

from hbdp_fed.privacy.accounting import calibrate, epsilon, epsilon_schedule
from hbdp_fed.privacy.plan import plan_hospital

__all__ = ["calibrate", "epsilon", "epsilon_schedule", "plan_hospital"]
