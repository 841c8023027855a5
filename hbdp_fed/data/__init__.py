"""Data sets with one contract, and how they are dealt to hospitals."""

from hbdp_fed.data.contract import TASKS, ImageDataset, Preparation, Records, as_floats
from hbdp_fed.data.federated import FederatedDataset, Hospital, deal
from hbdp_fed.data.members import POOLED, held_elsewhere, pooled, restricted
from hbdp_fed.data.partition import PartitionSettings, hospital_names
from hbdp_fed.data.properties import RecordProperty, check_property, property_called
from hbdp_fed.data.registry import DATASETS, load_dataset
from hbdp_fed.data.shards import read_shard, write_shard

__all__ = [
    "DATASETS",
    "POOLED",
    "TASKS",
    "FederatedDataset",
    "Hospital",
    "ImageDataset",
    "PartitionSettings",
    "Preparation",
    "RecordProperty",
    "Records",
    "as_floats",
    "check_property",
    "deal",
    "held_elsewhere",
    "hospital_names",
    "load_dataset",
    "pooled",
    "property_called",
    "read_shard",
    "restricted",
    "write_shard",
]
