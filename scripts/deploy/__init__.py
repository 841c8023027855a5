"""Everything around the apps of a real federation: keys and certificates, its processes, and its rehearsal at home."""
