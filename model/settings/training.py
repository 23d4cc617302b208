"""What a recipe says about the model, its pretraining and its evaluation (unit, bounds and meaning of every field).

The defaults are the paper's model at the paper's size. [paper] marks what the paper states, [ours] our reading where it
is silent.
"""

from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Natural, Probability, Rate, Rates, Ratio, Shares
from wavecity.model.settings.equivariance import EquivarianceSettings
from wavecity.model.settings.prediction import PredictionSettings
from wavecity.model.settings.rays import FewLabelsSettings, RaysSettings, ZeroShotSettings
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.temporal import TemporalSettings

RatioRange = tuple[Ratio, Ratio]


class ModelSettings(Settings):
    """Architecture (Appendix A). The defaults give 468 tokens and 2.4 M parameters."""

    profile: Literal["paper", "wavecity"] = Field(
        "paper",
        description="How masked CSI is predicted: `paper`, a linear head on every masked patch; or `wavecity`, sparse "
        "recovery of the plane waves from the visible antennas, with a prior over directions that the decoder gives.",
    )
    width: int = Field(128, ge=8, le=4096, description="Token dimension d [paper: 128].")
    encoder_layers: int = Field(8, ge=1, le=64, description="Encoder blocks [paper: 8].")
    decoder_layers: int = Field(2, ge=1, le=64, description="Decoder blocks [paper: 2].")
    heads: int = Field(4, ge=1, le=64, description="Attention heads [paper: 4].")
    mlp_ratio: float = Field(4.0, gt=0, le=16, description="Hidden width of a block's MLP over d [paper: 4].")
    csi_patch: int = Field(4, ge=1, le=64, description="Edge of a CSI patch in antennas [paper: 4].")
    height_patch: int = Field(10, ge=1, le=200, description="Edge of a height patch in cells of the map [paper: 10].")
    spectrum_channels: int = Field(32, ge=1, le=512, description="Channels of the spectrum head's map [paper: 32].")
    spectrum_map: int = Field(8, ge=1, le=64, description="Edge of the spectrum head's coarse map [ours].")
    spectrum_size: int = Field(32, ge=1, le=256, description="Edge of the predicted spectrum, 8, 16 or 32 bins [ours].")
    spectrum_from: Literal["encoded", "decoded"] = Field(
        "encoded",
        description="The [PHYSC] token that the spectrum head reads: `encoded` (Appendix B; the representation used "
        "downstream, no decoder needed) or `decoded` (section 3.3).",
    )

    recovery_steps: int = Field(10, ge=1, le=64, description="Iterations of profile `wavecity`'s recovery.")
    recovery_oversampling: int = Field(
        4, ge=1, le=16, description="Directions that the recovery tells apart, for each DFT bin along either axis."
    )
    recovery_antennas: Count = Field(
        128,
        description="Largest number of visible antennas for which training goes through the recovery. Steps that show "
        "more leave the CSI term out: their cost grows with the cube, and so many antennas need no prior.",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ModelSettings":
        if self.width % self.heads:
            msg = f"training.model.width {self.width} must be a multiple of training.model.heads {self.heads}"
            raise ValueError(msg)
        if self.spectrum_size % self.spectrum_map:
            raise ValueError(
                f"training.model.spectrum_size {self.spectrum_size} must be a multiple of training.model.spectrum_map "
                f"{self.spectrum_map}"
            )
        return self


class StageMasks(Settings):
    """One row of Table 1: the share of a modality's patches that is masked, drawn uniformly from a range."""

    csi_large: RatioRange = Field(description="CSI patches masked when CSI is the objective.")
    height_large: RatioRange = Field(description="Height patches masked when the scene is the objective.")
    csi_moderate: RatioRange = Field(description="CSI patches masked when all modalities are.")
    height_moderate: RatioRange = Field(description="Height patches masked when all modalities are.")

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "StageMasks":
        for name in type(self).model_fields:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"masking ratio {name} [{low}, {high}]: the first must not exceed the second")
        return self


class MaskingSettings(Settings):
    """Objectives, stages and their curriculum (Appendix B.4, Table 1)."""

    stage_1: StageMasks = StageMasks(
        csi_large=(0.5, 0.5), height_large=(0.1, 0.1), csi_moderate=(0.3, 0.3), height_moderate=(0.05, 0.05)
    )
    stage_2: StageMasks = StageMasks(
        csi_large=(0.7, 0.9), height_large=(0.2, 0.3), csi_moderate=(0.5, 0.7), height_moderate=(0.1, 0.2)
    )
    objectives: tuple[Ratio, Ratio, Ratio] = Field(
        (0.4, 0.15, 0.45),
        description="Probabilities of the objectives CSI, scene, all modalities [ours]; their sum is 1.",
    )
    stage_2_start: float = Field(0.2, ge=0, le=1, description="Probability of stage 2 in the first epoch [ours].")
    stage_2_end: float = Field(0.9, ge=0, le=1, description="Probability of stage 2 in the last epoch [ours].")
    location_hidden: Probability = Field(
        0.5, description="Probability that stage 2's all-modality objective hides the location [paper: 0.5]."
    )
    extreme_share: Probability = Field(
        0.3, description="Share of stage 2's CSI steps at `extreme_ratio`, so that 5 % CSI is not new [ours]."
    )
    extreme_ratio: float = Field(0.94, ge=0, lt=1, description="Share of CSI patches masked then: 4 of 64 stay [ours].")
    csi_only: Probability = Field(
        0.0,
        description="Share of the CSI and all-modality steps that show CSI tokens only, neither scene nor location: "
        "several times cheaper [ours].",
    )

    @model_validator(mode="after")
    def _probabilities_sum_to_one(self) -> "MaskingSettings":
        if abs(sum(self.objectives) - 1) > 1e-6:
            raise ValueError(f"training.masking.objectives {self.objectives} must sum to 1")
        return self


class LossSettings(Settings):
    """Equations 2 to 7."""

    csi: float = Field(1.0, ge=0, description="Weight lambda_CSI of eq. 7.")
    location: float = Field(2.0, ge=0, description="Weight lambda_loc of eq. 7.")
    occupancy: float = Field(0.5, ge=0, description="Weight lambda_occ of eq. 7.")
    spectrum: float = Field(0.5, ge=0, description="Weight lambda_spec of eq. 7.")
    csi_form: Literal["nmse", "wrapped", "literal"] = Field(
        "nmse",
        description="Eq. 2: `literal` (no phase wrap, singular at 0), `wrapped` (angle of H_hat conj(H)), or `nmse`: "
        "squared error of the complex entries over their energy.",
    )
    spectrum_form: Literal["kl", "rmse"] = Field(
        "rmse", description="Eq. 6 (`rmse`), or `kl`: Kullback-Leibler divergence of the spectra as distributions."
    )
    alpha: float = Field(0.5, ge=0, le=1, description="alpha of eq. 6, weight of the linear part [ours].")
    epsilon: float = Field(1e-3, gt=0, description="epsilon of eq. 6, over a spectrum of mean 1 [ours].")
    positive_weight: float = Field(1.0, gt=0, description="Weight of occupied patches in eq. 4 [paper: 1].")


class OptimiserSettings(Settings):
    """AdamW with warm-up and cosine decay [ours]."""

    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate.")
    betas: tuple[Ratio, Ratio] = Field((0.9, 0.95), description="AdamW's betas.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay; none on biases, norms, embeddings.")
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up.")
    final_share: float = Field(0.01, ge=0, le=1, description="Learning rate of the last step over the peak.")
    gradient_clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 turns clipping off.")


class AugmentSettings(Settings):
    """Random changes that leave the physics intact [ours]."""

    global_phase: bool = Field(True, description="Rotate a user's channel by one random phase.")
    mirror: bool = Field(True, description="Mirror scene, array and location east-west; needs a panel facing south.")


class HeadSettings(Settings):
    """Heads, baselines and fine-tuning: the same budget and the same choice of learning rates for every method."""

    seeds: int = Field(3, ge=1, le=100, description="Repetitions, each with labels, weights and batches of its own.")
    steps: int = Field(300, ge=1, description="Optimiser steps of a head.")
    batch_size: int = Field(256, ge=1, description="Users in a step of a head.")
    learning_rates: Rates = Field(
        (1e-3, 3e-3, 1e-2),
        description="Learning rates tried; the best on held-back labels is taken, for each method by itself.",
    )
    held_back: float = Field(0.2, gt=0, lt=1, description="Share of the labels that chooses the rate and when to stop.")
    finetune_steps: int = Field(200, ge=0, description="Steps of training encoder and head together; 0 leaves it out.")
    finetune_batch: int = Field(32, ge=1, description="Users in such a step.")
    finetune_rates: Rates = Field((3e-4, 1e-3), description="Learning rates tried for encoder and head together.")


class LocalizationSettings(Settings):
    """Localisation with the scene and partial CSI, the location hidden (section 4.1)."""

    csi: float = Field(0.25, gt=0, le=1, description="Share of CSI patches seen [paper: 0.25].")
    snr: float = Field(10.0, description="Signal-to-noise ratio of that CSI in dB [paper: 10].")
    scenes: int = Field(4, ge=1, description="Scenes of the test split, each with heads of its own [paper: 4].")
    users: int = Field(10_000, ge=10, description="Largest number of users of such a scene [paper: 10,000].")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share of them that is tested on, never labelled [ours].")
    labels: tuple[Count, ...] = Field((100, 300, 1000, 3000), min_length=1, description="Labelled users a scene.")


class CrossSceneSettings(Settings):
    """One localisation head for all scenes, tested on unseen ones; CSI and noise as `localization` (section 4.1)."""

    train_users: int = Field(345_000, ge=10, description="Largest number of labelled users of training scenes [paper].")
    scenes: int = Field(4, ge=1, description="Unseen scenes tested on [paper: 4].")
    users: int = Field(2000, ge=10, description="Largest number of users of such a scene [paper: 2,000].")
    labels: tuple[Natural, ...] = Field(
        (0, 20, 50, 100, 300), min_length=1, description="Labelled users of the unseen scene; 0 is zero-shot."
    )
    adapt_rates: Rates = Field(
        (1e-5, 1e-4, 1e-3), description="Learning rates tried for fine-tuning on them [paper: 1e-5 alone]."
    )


class LinkSettings(Settings):
    """Power of the downlink [ours]."""

    power_dbm: float = Field(30.0, ge=-30, le=80, description="Transmit power in dBm.")
    bandwidth: float = Field(100e6, gt=0, le=1e10, description="Bandwidth of the noise in Hz.")
    noise_figure: float = Field(7.0, ge=0, le=50, description="Noise figure of a receiver in dB.")


class MuMimoSettings(Settings):
    """Beams for a cluster of single-antenna users, and the sum-rate they give (section 4.1, Appendix C.1)."""

    csi: float = Field(0.05, gt=0, le=1, description="Share of the CSI patches seen, at least one [paper: 5 %].")
    snr: float | None = Field(
        None,
        description="Signal-to-noise ratio of that CSI in dB; empty for CSI without noise, as in the paper [ours].",
    )
    users: int = Field(27_000, ge=10, description="Largest number of labelled users of training scenes [paper].")
    test_users: int = Field(4000, ge=10, description="Largest number of users of test scenes.")
    cluster: int = Field(8, ge=1, le=64, description="Users of a cluster, and RF chains [paper: 8].")
    ratios: Shares = Field((0.05, 0.1, 0.2, 0.4, 0.8), description="Shares of the labels used.")
    hidden: tuple[tuple[Count, ...], ...] = Field(
        ((), (32,), (32, 32)), description="Hidden layers of the heads compared in the ablation; () is a linear probe."
    )
    ablation_rates: tuple[Rate, ...] = Field((1e-3, 1e-4), description="Learning rates of the ablation [paper].")
    link: LinkSettings = LinkSettings()


class SuMimoSettings(Settings):
    """Beam pairs for a user of several antennas, and the rate of two streams (section 4.1, Appendix C.2)."""

    csi: float = Field(0.05, gt=0, le=1, description="Share of the CSI patches seen, at least one [paper: 5 %].")
    snr: float | None = Field(
        None,
        description="Signal-to-noise ratio of that CSI in dB; empty for CSI without noise, as in the paper [ours].",
    )
    columns: int = Field(2, ge=1, le=16, description="Antennas of the user along x; 2 x 2 are the paper's four.")
    rows: int = Field(2, ge=1, le=16, description="Antennas of the user along y.")
    users: int = Field(34_000, ge=10, description="Largest number of labelled users of training scenes [paper].")
    test_users: int = Field(2000, ge=10, description="Largest number of users of test scenes.")
    ratios: Shares = Field((0.05, 0.1, 0.2, 0.4, 0.8), description="Shares of the labels used.")
    link: LinkSettings = LinkSettings()

    @model_validator(mode="after")
    def _two_beams(self) -> "SuMimoSettings":
        if self.columns * self.rows < 2:
            msg = "training.evaluation.su_mimo.columns times rows must be at least 2: two beams are chosen at the user"
            raise ValueError(msg)
        return self


class EvaluationSettings(Settings):
    """Held-out evaluation: reconstruction, and the downstream tasks."""

    tasks: tuple[TaskName, ...] | None = Field(
        None,
        description="Tasks run after a pretraining; empty: all of the model that the dataset allows, but not equivariance, "
        "radio-map and few-labels, which train networks of their own, nor a path model's localization, cross-localization, "
        "mu-mimo and su-mimo, which take long.",
    )
    batch_size: int = Field(64, ge=1, description="Users in an evaluation batch.")
    max_users: int = Field(
        2000, ge=1, description="Largest number of held-out users of the reconstruction, spread over the scenes."
    )
    masks: tuple[Ratio, ...] = Field((0.5, 0.7, 0.94), description="CSI mask ratios of the reconstruction table.")
    scene_mask: float = Field(0.2, gt=0, lt=1, description="Share of height patches masked for occupancy.")
    omp_atoms: int = Field(16, ge=1, le=256, description="Paths that orthogonal matching pursuit may use.")
    physics_users: int = Field(
        2000,
        ge=0,
        description="Largest number of tested users of a scene that the physics localiser places, in 20 to 200 ms of CPU time "
        "each; where there are more it is left out, and everywhere with 0.",
    )
    spectra_shown: int = Field(4, ge=0, le=64, description="Held-out users whose spectra the report shows.")
    heads: HeadSettings = HeadSettings()
    localization: LocalizationSettings = LocalizationSettings()
    cross_scene: CrossSceneSettings = CrossSceneSettings()
    mu_mimo: MuMimoSettings = MuMimoSettings()
    su_mimo: SuMimoSettings = SuMimoSettings()
    prediction: PredictionSettings = PredictionSettings()
    equivariance: EquivarianceSettings = EquivarianceSettings()
    zero_shot: ZeroShotSettings = ZeroShotSettings()
    few_labels: FewLabelsSettings = FewLabelsSettings()


class TrainingSettings(Settings):
    """Everything between a published dataset and the report."""

    backbone: Literal["multimodal", "temporal", "rays"] = Field(
        "multimodal",
        description="What is trained: the multi-modal model on single snapshots, the temporal one on trajectories, or the path "
        "model on the waves of single snapshots. For the latter two `masking`, `losses`, `augment` and `normalisation` do not "
        "count, nor `model` (of which the path model reads csi_patch), but `temporal` or `rays` does.",
    )
    init_from: str | None = Field(
        None,
        min_length=1,
        description="Run folder or checkpoint whose weights the pretraining starts from, not its optimiser; of the same "
        "architecture. Empty: random weights.",
    )
    temporal: TemporalSettings = TemporalSettings()
    rays: RaysSettings = RaysSettings()
    model: ModelSettings = ModelSettings()
    masking: MaskingSettings = MaskingSettings()
    losses: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    augment: AugmentSettings = AugmentSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    normalisation: Literal["visible", "dataset"] = Field(
        "visible",
        description="Scale of the CSI: RMS of the sample's visible patches (its level becomes a feature), or one RMS "
        "for the whole dataset.",
    )
    epochs: int = Field(50, ge=1, le=100_000, description="Passes over the training users [paper: 50].")
    batch_size: int = Field(32, ge=1, description="Users in a step, over all devices.")
    validation_users: int = Field(2000, ge=1, description="Largest number of validation users, once an epoch.")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="`auto`: bfloat16 on a GPU, float32 on a CPU, where bfloat16 was slower."
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where Lightning trains.")
    devices: Count = Field(
        1, description="Devices, or processes on a CPU, that share every step's batch (DDP); must divide batch_size."
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of torch in a process, 0 for its own choice. Results differ in their last digits between "
        "numbers of threads; more of them than idle cores cost time.",
    )
    loader_workers: Natural = Field(
        0,
        description="Processes that decode data; the order of the users depends on their number. With 0 a thread "
        "decodes ahead, some 10,000 users a second and more, which is enough for most models.",
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="Minutes between checkpoints within an epoch.")
    ema_decay: Ratio = Field(
        0.0,
        description="Decay a step of an exponential moving average of the weights, e.g. 0.999; validation, the "
        "checkpoint's `state_dict` and so every evaluation then use the averaged ones. 0 turns it off.",
    )
    compile: bool = Field(
        False,
        description="Compile the transformer blocks with torch.compile; needs a C++ compiler, first steps are slow.",
    )
    logger: Literal["csv", "tensorboard", "wandb"] = Field(
        "csv",
        description="Where curves go beside the CSV files that the report is drawn from; `tensorboard` and `wandb` are "
        "packages of their own. WANDB_MODE=offline keeps W&B on this machine.",
    )
    links: Literal["first", "all"] = Field(
        "first",
        description="Of a dataset with several base stations, whose links the multi-modal model is pretrained on: those of the "
        "first, or all, each a sample with its location turned to where its panel faces. `all` needs augment.mirror: false.",
    )

    @model_validator(mode="after")
    def _all_links_can_be_read(self) -> "TrainingSettings":
        """Refuse all links where they are not read, or a mirror that not every panel faces along."""
        if self.links == "all" and self.backbone != "multimodal":
            msg = (
                f"links is all, but backbone {self.backbone} reads those of the first base station; set links to first"
            )
            raise ValueError(msg)
        if self.links == "all" and self.augment.mirror:
            msg = "links is all, but augment.mirror needs panels that face south; set augment.mirror to false"
            raise ValueError(msg)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out `links` where it is the default: what is written of such settings is as it was before."""
        content: dict[str, object] = handler(self)
        if self.links == "first":
            content.pop("links", None)
        return content
