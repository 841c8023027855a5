"""Bits of patients from answered counting queries (Dinur and Nissim 2003; Dwork, McSherry and Talwar 2007)."""

from hbdp_fed.adversary.linear_reconstruction.attack import LinearReconstruction

__all__ = ["LinearReconstruction"]
