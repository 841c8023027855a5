"""Prepared records in files that are mapped into memory: workers share their pages, and a second run starts at once.

A data set that is read from files is found by the content of all files that its loader reads, its options and the
version of the code that reads it (:mod:`~hbdp_fed.data.cache.keys`). Beside it lie the shards that its records were
dealt into.
"""

from hbdp_fed.data.cache.folder import DataCache
from hbdp_fed.data.cache.listing import Entry, entries_in, forget_contents, remove
from hbdp_fed.data.cache.loading import Loaded, load_kept

__all__ = ["DataCache", "Entry", "Loaded", "entries_in", "forget_contents", "load_kept", "remove"]
