"""The configuration's types. Hydra refuses a key that is not here and a value that does not fit its type."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Recipe:
    """Hyperparameters found on validation for one budget (finding them is outside epsilon)."""

    eps: float = MISSING
    rounds: int = MISSING
    local_steps: int = MISSING
    learning_rate: float = MISSING
    expected_batch: float = MISSING
    max_grad_norm: float = MISSING
    batch_per: str = "hospital"


@dataclass
class DataConfig:
    """What every data set has. A data set's own options are the further fields of its class below."""

    name: str = MISSING
    cache: str = "auto"
    scanner_shift: float | None = 0.0
    subgroups: list[str] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)


@dataclass
class PhantomConfig(DataConfig):
    """Options of the embedded generator."""

    seed: int = 0
    num_train: int = 2000
    num_val: int = 400
    num_test: int = 1000
    image_size: int = 28
    prevalence: float = 0.5


@dataclass
class MedMnistConfig(DataConfig):
    """Options of one MedMNIST set; its splits are official."""

    size: int = 28
    on_bad_record: str = "stop"


@dataclass
class AnyMedMnistConfig(MedMnistConfig):
    """Options of a MedMNIST set chosen by name."""

    set: str = "pneumoniamnist"


@dataclass
class ChestXrayConfig(DataConfig):
    """Options of the paediatric chest X-rays in folders."""

    image_size: int = 64
    task: str = "binary"
    val_fraction: float = 0.1
    split_seed: int = 0
    on_bad_record: str = "stop"


@dataclass
class RadImageNetConfig(DataConfig):
    """Options of RadImageNet."""

    image_size: int = 224
    max_records: int = 0
    subset_seed: int = 0
    train_csv: str = "RadiologyAI_train.csv"
    val_csv: str = "RadiologyAI_val.csv"
    test_csv: str = "RadiologyAI_test.csv"
    on_bad_record: str = "stop"


@dataclass
class Ham10000Config(DataConfig):
    """Options of HAM10000."""

    task: str = "binary"
    image_size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_bad_record: str = "stop"


@dataclass
class MsdConfig(DataConfig):
    """Options of a Decathlon task."""

    task: str = "Task04_Hippocampus"
    image_size: list[int] = field(default_factory=lambda: [40, 56, 40])
    fit: str = "crop"
    spacing: list[float] | None = None
    window: list[float] = field(default_factory=lambda: [-150.0, 250.0])
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_bad_record: str = "stop"


@dataclass
class ManifestConfig(DataConfig):
    """What sets that a manifest lists have in common."""

    manifest: str | None = None
    folder: str | None = None
    class_names: list[str] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_bad_record: str = "stop"


@dataclass
class ImagefolderConfig(ManifestConfig):
    """Options of listed pictures."""

    image_size: int = 64
    mode: str = "L"


@dataclass
class NiftiConfig(ManifestConfig):
    """Options of listed volumes."""

    image_size: list[int] = field(default_factory=lambda: [40, 56, 40])
    fit: str = "crop"
    spacing: list[float] | None = None
    window: list[float] | None = None


@dataclass
class DicomConfig(ManifestConfig):
    """Options of listed DICOM. ``image_size`` is one number for images, three for volumes."""

    image_size: Any = 64
    mode: str = "L"
    fit: str = "crop"
    spacing: list[float] | None = None
    window: list[float] | None = None


@dataclass
class ModelConfig:
    """What every model has."""

    name: str = MISSING
    weights: str | None = None
    weights_partial: bool = False


@dataclass
class CnnConfig(ModelConfig):
    """Options of the small CNN."""

    width: int = 16


@dataclass
class MlpConfig(ModelConfig):
    """Options of the fully connected net."""

    hidden: list[int] = field(default_factory=lambda: [256])


@dataclass
class ResNet9Config(ModelConfig):
    """Options of ResNet-9."""

    width: int = 64
    weight_standardization: bool = True


@dataclass
class UnetConfig(ModelConfig):
    """Options of the U-Net of the paper's width."""

    width: int = 16


@dataclass
class MonaiUnetConfig(ModelConfig):
    """Options of MONAI's own U-Net, with residual units."""

    width: int = 16
    levels: int = 5
    res_units: int = 2


@dataclass
class MonaiConfig(ModelConfig):
    """Options of any net of MONAI's: which one, and its own keywords."""

    net: str = "DenseNet121"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class EngineConfig:
    """How the federation is run."""

    name: str = MISSING
    workers: int | None = None
    threads_per_client: int = 1
    gpus_per_client: float | None = None
    address: str = "local"
    root_certificates: str | None = None
    federations: str | None = None
    patience_s: float = 600.0


@dataclass
class PartitionConfig:
    """How records are dealt over hospitals."""

    scheme: str = "iid"
    alpha: float = 0.5
    sizes: str = "equal"
    exponent: float = 1.0
    column: str | None = None
    overlap: float = 0.0


@dataclass
class SiteKindConfig:
    """One kind of hospital: how many there are, what they hold, their scanners, computers, lines and outages."""

    kind: str = MISSING
    hospitals: float = MISSING
    records: float = MISSING
    scanner_shift: float = 0.0
    records_per_s: float = 500.0
    download_mbit_s: float = 100.0
    upload_mbit_s: float = 40.0
    latency_s: float = 0.1
    availability: float = 1.0


@dataclass
class SitesConfig:
    """What kinds of hospitals there are; none where all are alike."""

    name: str = "equal"
    kinds: list[SiteKindConfig] = field(default_factory=list)


@dataclass
class PrivacyConfig:
    """Whom epsilon is for, how it is counted, for how many steps, and where the noise comes from."""

    unit: str = "record"
    records_per_patient: int = 4
    accountant: str = "rdp"
    steps: int | None = None
    secure_noise: bool = False


@dataclass
class TrainingConfig:
    """Local training. What is None comes from the data set's recipe for the nearest budget."""

    rounds: int | None = None
    epochs: float | None = None
    local_steps: int | None = None
    learning_rate: float | None = None
    expected_batch: float | None = None
    batch_per: str | None = None
    clip_without_noise: bool = False
    max_grad_norm: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    final_fraction: float = 0.01
    augmentation: str = "none"
    loss: str = "auto"
    class_weights: list[float] | None = None
    multiplicity: int = 1
    ema_decay: float = 0.0
    grad_mode: str = "hbdp"
    precision: str = "float32"
    max_physical_batch: int = 256
    proximal: float = 0.0
    correction: str = "none"


@dataclass
class SitePolicyConfig:
    """What every hospital insists on before it takes part."""

    highest_epsilon: float = math.inf
    lowest_records: int = 0
    allowed_tasks: list[str] = field(default_factory=list)
    allowed_models: list[str] = field(default_factory=list)
    secure_noise: bool = False


@dataclass
class FederationConfig:
    """The server's side."""

    members: list[str] = field(default_factory=list)
    elsewhere: dict[str, int] = field(default_factory=dict)
    pooled: bool = False
    weighting: str = "records"
    participation: float = 1.0
    aggregation: str = "mean"
    trim: float = 0.2
    byzantine: int = 1
    secure_aggregation: bool = False
    screening: str = "none"
    on_failure: str = "abort"
    min_hospitals: int = 1
    round_timeout_s: float = 3600.0
    profiles: dict[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    site_policy: SitePolicyConfig = field(default_factory=SitePolicyConfig)
    faults: list[Any] = field(default_factory=list)
    server_optimizer: str = "none"
    server_learning_rate: float = 1.0
    server_momentum: float = 0.9
    record: str = "all"
    checkpoints: int = 0
    save_every: int = 1


@dataclass
class AdversaryConfig:
    """The attacks that the run is put to. ``attack`` and ``surfaces`` are a word or a list of words."""

    attack: Any = "auto"
    surfaces: Any = "auto"
    hospitals: list[str] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    probes: int = 1
    bins: int = 1024
    options: dict[str, Any] = field(default_factory=dict)
    candidates: int = 64
    targets: int = 100
    observed_rounds: int | None = None
    only_last_model: bool = False
    property: str | None = None
    populations: int = 40
    shadows: int = 64
    thresholds: list[float] = field(default_factory=lambda: [0.8])
    prior: float = 0.01
    denoiser: str = "none"


@dataclass
class SweepConfig:
    """A sweep's own settings; all others are those of its runs."""

    name: str = "sweep"
    seeds: Any = 3
    compared: list[str] = field(default_factory=lambda: ["alone", "pooled"])
    parallel: int | None = None
    cpus_per_run: int = 1
    sweep_dir: str | None = None
    resume: str | None = None


@dataclass
class EvaluationConfig:
    """How the released model is judged."""

    every: int = 1
    bootstrap: int = 1000
    matrix: int = 10


@dataclass
class RunConfig:
    """Everything ``python -m simulations.run`` takes."""

    name: str = "run"
    seed: int = 0
    clients: int = 5
    eps: float = 1e12
    delta: float = 1e-5
    device: str = "auto"
    run_dir: str | None = None
    resume: str | None = None
    tracking: str = "none"
    report: str = "html"
    smallest_count: int = 10
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    engine: EngineConfig = MISSING
    sites: SitesConfig = field(default_factory=SitesConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass
class AttackConfig:
    """Everything ``python -m simulations.attack`` takes. What is None is as in the run."""

    run: str = MISSING
    attack: Any = None
    surfaces: Any = None
    hospitals: list[str] | None = None
    rounds: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    candidates: int | None = None
    targets: int | None = None
    observed_rounds: int | None = None
    only_last_model: bool | None = None
    property: str | None = None
    populations: int | None = None
    shadows: int | None = None
    thresholds: list[float] | None = None
    prior: float | None = None
    denoiser: str | None = None
    output: str | None = None


@dataclass
class BudgetConfig:
    """Everything ``python -m simulations.budget`` takes."""

    sample_rate: float = 0.05
    steps: int = 2000
    records: int = 1400
    delta: float = 1e-5
    budgets: list[float] = field(default_factory=list)
    accountant: str = "rdp"
    prior: float = 0.01
    pixels: int = 784
    image_rms: float = 0.5
    learning_rate: float = 0.1
    max_grad_norm: float = 1.0
    largest_weight: float = 1.0
    format: str | None = None
    output: str | None = None


@dataclass
class CompareConfig:
    """Everything ``python -m simulations.compare`` takes beside the two sides."""

    format: str | None = None
    output: str | None = None
    replicates: int = 2000
    seed: int = 0


@dataclass
class PredictConfig:
    """Everything ``python -m simulations.predict`` takes beside the model and the images."""

    format: str | None = None
    output: str | None = None
    masks: str | None = None
    on_bad_record: str = "stop"
    device: str = "auto"


@dataclass
class PolicyConfig:
    """What is wanted of a budget. What is None is as the consortium's target says, and else as the policy's default."""

    margin: float | None = None
    metric: str | None = None
    risk: float | None = None
    least_records: int | None = None
    threat_model: str = "realistic"
    max_worst_case_bound: float | None = None


@dataclass
class PlanConfig:
    """Everything ``python -m simulations.plan`` takes."""

    consortium: str = MISSING
    budgets: list[float] | None = None
    sweep: str | None = None
    group: int | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    calibrate: str = "auto"
    calibration_s: float = 3.0
    workers: int | None = None
    device: str = "auto"
    format: str = "table"
    output: str | None = None


@cache
def register() -> None:
    """Make the types known to Hydra under the names that the YAML files use."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    store.store(name="budget_schema", node=BudgetConfig)
    store.store(name="attack_schema", node=AttackConfig)
    store.store(name="sweep_schema", node=SweepConfig)
    store.store(name="compare_schema", node=CompareConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="plan_schema", node=PlanConfig)
    store.store(group="data", name="phantom_schema", node=PhantomConfig)
    store.store(group="data", name="medmnist_schema", node=MedMnistConfig)
    store.store(group="data", name="any_medmnist_schema", node=AnyMedMnistConfig)
    store.store(group="data", name="chest_xray_schema", node=ChestXrayConfig)
    store.store(group="data", name="radimagenet_schema", node=RadImageNetConfig)
    store.store(group="data", name="ham10000_schema", node=Ham10000Config)
    store.store(group="data", name="msd_schema", node=MsdConfig)
    store.store(group="data", name="imagefolder_schema", node=ImagefolderConfig)
    store.store(group="data", name="nifti_schema", node=NiftiConfig)
    store.store(group="data", name="dicom_schema", node=DicomConfig)
    store.store(group="model", name="cnn_schema", node=CnnConfig)
    store.store(group="model", name="mlp_schema", node=MlpConfig)
    store.store(group="model", name="resnet9_schema", node=ResNet9Config)
    store.store(group="model", name="unet_schema", node=UnetConfig)
    store.store(group="model", name="monai_unet_schema", node=MonaiUnetConfig)
    store.store(group="model", name="monai_schema", node=MonaiConfig)
    store.store(group="engine", name="engine_schema", node=EngineConfig)
    store.store(group="sites", name="sites_schema", node=SitesConfig)
