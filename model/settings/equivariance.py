"""What a recipe says about the evaluation of wave equivariance."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Counts, Part, Rates

Method = Literal["vanilla", "augmented", "penalised", "wrapped"]
Bins = Annotated[float, Field(gt=0, le=1000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9 .,+-]*$")]


class BudgetSettings(Settings):
    """What every method is trained with, from random weights: the same data, steps and choice of rate."""

    steps: int = Field(200, ge=1, description="Steps of every training.")
    batch_size: int = Field(16, ge=1, description="Users in a step.")
    learning_rates: Rates = Field(
        (1e-3, 3e-3),
        description="Learning rates tried; the best on held-back users is taken, for each method, size and number of "
        "users by itself.",
    )
    sizes: tuple[tuple[Count, Count], ...] = Field(
        ((16, 1), (32, 2), (64, 4)),
        min_length=1,
        description="Widths and layers (of the encoder) of the models, from small to large; all else is as in the run's "
        "model. All methods are trained at the largest.",
    )
    samples: Counts = Field(
        (50, 200, 800),
        description="Numbers of training users, ascending; all methods are trained with the most. Where there are "
        "fewer, a quarter of what there is is kept for the test in seen scenes.",
    )
    test_users: int = Field(128, ge=1, description="Largest number of test users of each set.")

    @model_validator(mode="after")
    def _ascending(self) -> "BudgetSettings":
        if list(self.samples) != sorted(set(self.samples)):
            raise ValueError(f"samples {list(self.samples)} must ascend, each value once")
        costs = [width * width * layers for width, layers in self.sizes]
        if costs != sorted(set(costs)):
            raise ValueError(f"sizes {[list(size) for size in self.sizes]} must go from small to large, each size once")
        return self


class EquivarianceSettings(Settings):
    """Does a modulated channel give an output that is modulated in the same way, and what is that worth where things shift?

    The defaults are for one CPU core and the small profiles, some twenty minutes: a step of 16 users takes 0.1 s, one of four
    windows of 24 snapshots 0.8 s, a penalised one twice that. Models of profile `wavecity` take far longer to train.
    """

    methods: tuple[Method, ...] = Field(
        ("vanilla", "augmented", "penalised", "wrapped"),
        description="Models trained from random weights: as they are; with every sample modulated at random; with a penalty "
        "on the equivariance error; with the canonicalising wrapper. Empty: only the run's own model is measured.",
    )
    scaled: tuple[Method, ...] = Field(
        ("vanilla", "wrapped"),
        description="Methods that are also trained at the smaller sizes, with the most users, and with fewer users, at the "
        "largest size.",
    )
    penalty: float = Field(
        1.0, gt=0, le=1e3, description="Weight of the equivariance error, which is added to the loss [ours]."
    )
    mask: Part = Field(
        0.9, description="Share of the CSI patches that is masked in estimation, at random for each user [ours]."
    )
    shifts: tuple[Bins, ...] = Field(
        (0.25, 0.5, 1, 1.5, 2, 4, 5.5, 8),
        min_length=1,
        description="Shifts |g| at which the equivariance error is measured, in bins of each axis: whole ones are on the "
        "grid.",
    )
    shift_users: int = Field(8, ge=1, description="Test users that the equivariance error is measured over.")
    shifted: dict[Name, str] = Field(
        {},
        description="Sets out of distribution: name -> store, built by the recipe of the evaluated dataset with another "
        "radio.azimuth, radio.downtilt or radio.frequency. Its test split is used.",
    )
    timings: int = Field(30, ge=1, description="Calls of the plain and of the wrapped model, in turn, that are timed.")
    extrapolation: bool | None = Field(
        None,
        description="Whether temporal models trained here start from forecasts by each sample's own past; null: as the run's.",
    )
    estimation: BudgetSettings = BudgetSettings()
    prediction: BudgetSettings = BudgetSettings(
        steps=30, batch_size=4, learning_rates=(1e-3, 4e-3), sizes=((8, 1), (32, 1)), samples=(24, 144), test_users=16
    )

    @model_validator(mode="after")
    def _each_once(self) -> "EquivarianceSettings":
        for name in ("methods", "scaled", "shifts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"training.evaluation.equivariance.{name} {list(values)}: each value once")
        if unknown := sorted(set(self.scaled) - set(self.methods)):
            msg = f"training.evaluation.equivariance.scaled {unknown} must be among its methods {list(self.methods)}"
            raise ValueError(msg)
        return self
