"""What a recipe says about the temporal model and its pretraining (unit, bounds and meaning of every field)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Part


class TemporalModelSettings(Settings):
    """Architecture of LWM-Temporal. [card] marks what the model card says, [ours] what we chose."""

    width: int = Field(32, ge=4, le=4096, description="Token dimension d [card: 32].")
    layers: int = Field(12, ge=1, le=64, description="Blocks [card: 12].")
    heads: int = Field(8, ge=1, le=64, description="Attention heads [card: 8].")
    mlp_ratio: float = Field(4.0, gt=0, le=16, description="Hidden width of a block's MLP over d [card: 4].")
    patch: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] = Field(
        (1, 1), description="Bins of angle and of delay in a token [card: 1, 1]; they must divide the grid."
    )
    attention: Literal["sparse", "dense"] = Field(
        "sparse", description="`sparse`: each token attends to its neighbourhood (SSTA); `dense`: to all tokens."
    )
    reach: int = Field(2, ge=0, le=8, description="Largest drift in angle and in delay, in tokens [card: 2].")
    past: int = Field(4, ge=0, le=64, description="Earlier snapshots of the neighbourhood [card: 4].")
    future: int = Field(3, ge=0, le=64, description="Later snapshots of the neighbourhood [card: 3].")
    causal: bool = Field(False, description="Attend to nothing later than the token's own snapshot.")
    top_k: bool = Field(
        True,
        description="Each head keeps only the min(32, max(8, 0.2 K)) best of its K neighbours, with sparse attention.",
    )
    relative_bias: bool = Field(
        True,
        description="A learned number for every head and offset is added to the scores of sparse attention [ours].",
    )
    mixing: int = Field(
        8,
        ge=0,
        le=256,
        description="Rank of the mixing head: each hidden entry also is a complex combination of the visible entries of its "
        "bin, whose weights come from the tokens and from the distance in time; 0 leaves it out [ours].",
    )
    steady: bool = Field(
        True,
        description="Turn the mean Doppler of a sample's visible entries out before the network and back in behind it [ours]; "
        "never with `causal`, for it is that of all snapshots.",
    )
    extrapolation: bool = Field(
        True,
        description="Where all later snapshots are hidden, start from forecasts by the sample's own past alone (autoregressions, "
        "Dopplers), and let the model combine them [ours]; false leaves forecasting to the network alone.",
    )
    recompute: bool = Field(
        False, description="Compute each block again in the backward pass: a third more time, far less memory."
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> "TemporalModelSettings":
        if self.width % self.heads:
            msg = f"training.temporal.model.width {self.width} must be a multiple of training.temporal.model.heads {self.heads}"
            raise ValueError(msg)
        return self


class TemporalMaskingSettings(Settings):
    """Curriculum of masks, and impairments of what stays visible [abstract; the forms are ours]."""

    kinds: tuple[Literal["random", "tube", "comb", "occlusion", "tail"], ...] = Field(
        ("random", "tube", "comb", "occlusion", "tail"),
        min_length=1,
        description="Kinds of masks in the order in which they enter, evenly over the epochs: tokens at "
        "random; bins hidden at all times; snapshots at even distances; a blob of bins for a while; all later snapshots.",
    )
    newest: Part = Field(0.5, description="Share of the steps with the newest kind; the earlier ones share the rest.")
    ratio_start: Part = Field(0.3, description="Share of tokens hidden in the first epoch.")
    ratio_end: Part = Field(0.6, description="Share of tokens hidden in the last epoch; linear between.")
    impaired: float = Field(0.5, ge=0, le=1, description="Share of the samples with noise and phase noise.")
    snr: tuple[float, float] = Field(
        (10.0, 40.0), description="Range of the signal-to-noise ratio of impaired samples in dB, uniform."
    )
    phase_noise: float = Field(
        1.0, ge=0, le=90, description="Phase noise of impaired samples: deviation of a snapshot's phase in degrees."
    )

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "TemporalMaskingSettings":
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"training.temporal.masking.kinds {list(self.kinds)}: each kind once")
        for name, low, high in (("ratio_start", self.ratio_start, self.ratio_end), ("snr", *self.snr)):
            if low > high:
                raise ValueError(f"training.temporal.masking.{name} {low:g} must not exceed {high:g}")
        return self


class TemporalAugmentSettings(Settings):
    """Random changes that leave the physics intact [ours]."""

    global_phase: bool = Field(True, description="Rotate a sample by one random phase.")
    mirror: bool = Field(True, description="Mirror the array, and with it all angles.")
    reverse: bool = Field(True, description="Let time run backwards.")


class TemporalSettings(Settings):
    """The temporal model, its domain, and its pretraining.

    The defaults are the model card's size. On one CPU core take fewer layers; see recipe `temporal`.
    """

    model: TemporalModelSettings = TemporalModelSettings()
    masking: TemporalMaskingSettings = TemporalMaskingSettings()
    augment: TemporalAugmentSettings = TemporalAugmentSettings()
    snapshots: int = Field(
        24,
        ge=2,
        le=4096,
        description="Successive snapshots of a sample in pretraining, at a random place of its trajectory.",
    )
    delays: int = Field(8, ge=1, le=4096, description="Bins of delay that are kept; the others are dropped.")
    align: bool = Field(
        True,
        description="Keep the successive bins of delay with the most energy, as a synchronised receiver; false: the first.",
    )
