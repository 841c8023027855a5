"""A denoiser that an adversary trains on images of the same kind, and puts what any attack gives it through."""

from hbdp_fed.adversary.denoising.denoiser import Denoiser, check_images, train_denoiser

__all__ = ["Denoiser", "check_images", "train_denoiser"]
