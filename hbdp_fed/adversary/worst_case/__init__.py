"""The adversary of the worst case: it holds candidates and all other records, and weighs likelihoods."""

from hbdp_fed.adversary.worst_case.attacks import CandidateMatching, MembershipInference
from hbdp_fed.adversary.worst_case.likelihood import log_likelihood_ratios
from hbdp_fed.adversary.worst_case.participation import participation_law

__all__ = [
    "CandidateMatching",
    "MembershipInference",
    "log_likelihood_ratios",
    "participation_law",
]
