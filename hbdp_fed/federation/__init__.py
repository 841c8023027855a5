"""The only package that knows Flower and Ray: messages, the two apps, the averaging rule, the engines."""

import os

# Both libraries read these when they are first imported, and importing this package comes before that: nothing is to
# be reported to anyone from a hospital's machine.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's announced default of the future; asking for it now silences the announcement.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# By default a worker gives way to everything else on its machine, the server included, and starves beside other work.
os.environ.setdefault("RAY_worker_niceness", "0")

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""Makes glibc give blocks of 32 MiB and more back at once, in processes that find it in their environment when they
start. By itself it soon keeps blocks of any size, and work that allocates tensors of ever new sizes makes a worker grow
to many times of what it uses. Smaller blocks are kept: to hand back those of a training step makes it slower."""

for _name, _value in GIVE_BACK.items():
    os.environ.setdefault(_name, _value)
