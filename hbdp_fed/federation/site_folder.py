"""A real hospital's own folder: its records, its policy, and what it remembers of its federations.

    records.safetensors          its images and labels (see hbdp_fed.data.shards)
    references.safetensors       images of none of its patients, to try models on; where its policy asks for screening
    published.safetensors        weights that a federation starts from, known from elsewhere; there or not
    policy.yaml                  what it insists on and what it lets out
    site.log                     what it was asked and what it did, for its own people
    agreements/<digest>/         one for each charter, by the first half of its SHA-256
        charter.json             what was agreed to
        ledger.jsonl             what it planned, spent and refused
        answers/                 its latest answers, to give the same one again if the same is asked again
        received.safetensors     the last model that it got
        memory.safetensors       what its side of the training keeps between rounds
        screening.json           which figures of honest models its check of models found

Nothing here is sent to anybody but the arrays of an answer and those figures that the policy names.
"""

from __future__ import annotations

import fcntl
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hbdp_fed.data.contract import Records
from hbdp_fed.data.shards import read_shard
from hbdp_fed.errors import DataFileError
from hbdp_fed.privacy.site_policy import SitePolicy

_LONGEST_POLICY = 100_000
_LONGEST_LOG = 20_000_000


class _PolicyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    highest_epsilon: float
    lowest_records: int
    allowed_tasks: tuple[str, ...]
    allowed_models: tuple[str, ...]
    secure_noise: bool = True
    tamper_check: bool = True
    screening: bool = False
    may_leave: tuple[str, ...] = ()


def read_policy(path: Path) -> SitePolicy:
    """A hospital's policy. Noise that can be repeated, and figures besides updates, have to be allowed by name.

    Raises:
        DataFileError: naming the condition that is missing, unknown or impossible.
    """
    try:
        if path.stat().st_size > _LONGEST_POLICY:
            raise DataFileError(path, f"is longer than {_LONGEST_POLICY} bytes")
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        return SitePolicy(**_PolicyFile.model_validate(value).model_dump())
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file: a hospital without a policy takes part in nothing") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataFileError(path, f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataFileError(path, f"cannot be read: {str(error).splitlines()[0]}") from error


def write_policy(path: Path, policy: SitePolicy) -> None:
    """The inverse of :func:`read_policy`."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(policy).items()}
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


@dataclass(frozen=True)
class SiteFolder:
    """Where a hospital keeps its own things.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def records_file(self) -> Path:
        """The hospital's records."""
        return self.path / "records.safetensors"

    @property
    def references_file(self) -> Path:
        """Images that models are tried on."""
        return self.path / "references.safetensors"

    @property
    def published_weights_file(self) -> Path:
        """Weights that its people know for honest, where a federation starts from such."""
        return self.path / "published.safetensors"

    @property
    def policy_file(self) -> Path:
        """What it insists on."""
        return self.path / "policy.yaml"

    @property
    def log_file(self) -> Path:
        """What happened, for its own people."""
        return self.path / "site.log"

    @property
    def agreements(self) -> Path:
        """A folder for each charter."""
        return self.path / "agreements"

    @cached_property
    def policy(self) -> SitePolicy:
        """As the file says when it is first asked for: a message is held against one policy, the next one anew."""
        return read_policy(self.policy_file)

    def records(self) -> Records:
        """All of them, mapped into memory."""
        return read_shard(self.records_file)

    def references(self) -> Records:
        """The images that models are tried on, with labels."""
        if not self.references_file.exists():
            raise DataFileError(
                self.references_file,
                "there is no such file, and the policy says screening: true; "
                "python -m scripts.deploy references writes one",
            )
        return read_shard(self.references_file)

    def tell(self, text: str) -> None:
        """Add a line to the log. No line names the folder, or what lies under it; an old log is begun anew."""
        if self.log_file.exists() and self.log_file.stat().st_size > _LONGEST_LOG:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        line = f"{datetime.now(UTC).isoformat(timespec='seconds')}  {self.without_paths(text)}\n"
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line)

    def without_paths(self, text: str) -> str:
        """The text with ``<site>`` in place of every path of this folder: names of folders and files can be patients'.

        Whatever follows the folder's own path goes, to the end of the line: a file's name may hold spaces.
        """
        for own in {str(self.path), str(self.path.resolve())}:
            text = re.sub(re.escape(own) + r"[^\n]*", "<site>", text)
        return text

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process answers for this hospital meanwhile: two could each charge what only one may."""
        with (self.path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def reason_of(error: BaseException) -> str:
    """An error without its words, which could name a patient's file: its kind, and where in the code it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def settle(path: Path) -> None:
    """See to it that a file that was just written survives a power cut."""
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
