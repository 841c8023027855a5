"""The sum of the hospitals' updates without anybody seeing a single one (Bonawitz et al. 2017, CCS).

A hospital writes its weighted update in whole multiples of a step (:class:`FixedPoint`), as numbers modulo 2^k, and
adds masks that are uniform there: one for each other hospital, which that hospital subtracts, and one of its own. What
it sends is uniform, too. In the sum the pairwise masks cancel. The own masks, and the pairwise masks of hospitals that
dropped out, are rebuilt from shares of their seeds (Shamir 1979), which the hospitals dealt out among each other
beforehand: any ``threshold`` of them give the seed, fewer give nothing. Of a hospital whose update is in the sum the
server learns the own mask's seed, of one that dropped out the key of the pairwise masks, and never both of the same
hospital: with both, an update that comes late would lie open.

The course of one sum::

    draw_secrets, draw_sealing_key    each hospital; their public keys go to the server, and from there to everybody
    deal_shares, seal                 each hospital -> server -> every other hospital
    open_sealed, masked_update        each hospital -> server
    add_masked                        the server, one update at a time; now it is known who dropped out
    release_shares                    each hospital that is left -> server
    unmask_sum                        the server

:func:`enrol` plays the first two in one place. As messages of a federation they are in
:mod:`hbdp_fed.federation.secure_rounds` (the server) and :mod:`hbdp_fed.federation.secure_client` (a hospital).

Keys agree over X25519 (RFC 7748), masks are ChaCha20's stream (RFC 8439), and shares that pass the server are sealed
with ChaCha20-Poly1305 under keys of their own. What is played here and not done:

- Everybody is honest but curious. Nobody signs the public keys, so a server that lies about them can put itself between
  two hospitals. Nobody compares lists of survivors, so a server that tells different hospitals different lists could
  collect both secrets of one; :func:`safe_threshold` stands in its way unless a third of the hospitals help it. An
  enrolment serves one sum, and a hospital answers one request for shares: it is the caller who has to keep count.
- With :func:`seeded_bytes` whoever knows the run's seed knows every secret. ``os.urandom`` is the source that protects.

The sum is all that the server learns, and that can be much: of two hospitals, each can take its own from it. Nor does
anybody see a hospital lie, so that no rule but the mean is possible. For H hospitals and d numbers the masks take time
H^2 d and the shares H^2 threshold: fine for tens of hospitals, slow for thousands (for those, Bell et al. 2020, CCS,
give each hospital only some neighbours).
"""

from hbdp_fed.federation.secure_sum.enrolment import (
    Enrolment,
    HeldShares,
    HospitalKeys,
    OwnSecrets,
    deal_shares,
    draw_secrets,
    enrol,
    is_public_key,
    public_key,
    safe_threshold,
)
from hbdp_fed.federation.secure_sum.fixed_point import FixedPoint
from hbdp_fed.federation.secure_sum.masking import MaskedUpdate, masked_update
from hbdp_fed.federation.secure_sum.sealing import draw_sealing_key, open_sealed, seal, sealing_public
from hbdp_fed.federation.secure_sum.sharing import FIELD_PRIME, Share, recover_secret, split_secret
from hbdp_fed.federation.secure_sum.sources import ByteSource, seeded_bytes
from hbdp_fed.federation.secure_sum.unmasking import MaskedSum, ReleasedShares, add_masked, release_shares, unmask_sum

__all__ = [
    "FIELD_PRIME",
    "ByteSource",
    "Enrolment",
    "FixedPoint",
    "HeldShares",
    "HospitalKeys",
    "MaskedSum",
    "MaskedUpdate",
    "OwnSecrets",
    "ReleasedShares",
    "Share",
    "add_masked",
    "deal_shares",
    "draw_sealing_key",
    "draw_secrets",
    "enrol",
    "is_public_key",
    "masked_update",
    "open_sealed",
    "public_key",
    "recover_secret",
    "release_shares",
    "safe_threshold",
    "seal",
    "sealing_public",
    "seeded_bytes",
    "split_secret",
    "unmask_sum",
]
