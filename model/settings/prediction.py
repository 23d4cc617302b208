"""What a recipe says about the evaluation of channel prediction under mobility."""

from typing import Annotated

from pydantic import Field, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Counts, Natural, Rates, Share, Shares


class PredictionSettings(Settings):
    """Channel prediction: snapshots to come from snapshots seen, in unseen cities.

    The defaults are for one CPU core: 40 trainings of the model on 120 windows, and four with dense attention. With windows
    of 24 snapshots of 16 x 8 bins these cost about 0.1 s a window and layer, and ten times that with dense attention.
    """

    past: int = Field(16, ge=2, description="Snapshots seen, directly before those predicted [ours].")
    horizons: tuple[Count, ...] = Field((1, 2, 4, 8), min_length=1, description="Snapshots ahead that are judged.")
    labels: Shares = Field((0.01, 0.05, 0.1, 0.5, 1.0), description="Shares of the training users that are labelled.")
    users: int = Field(1000, ge=4, description="Largest number of training users: these are 100 % of the labels.")
    test_users: int = Field(24, ge=1, description="Largest number of test users of each regime of speed.")
    snr: float | None = Field(
        10.0,
        description="Signal-to-noise ratio in dB of the snapshots seen, for every method; null: no noise. What is "
        "predicted and judged is always without noise [ours].",
    )

    fit_windows: Natural = Field(
        64,
        description="Windows of the labelled users by which the weights that combine the model's guesses are fitted, "
        "by least squares, before fine-tuning; 0 leaves that out. The same for every twin.",
    )
    steps: int = Field(30, ge=1, description="Steps of fine-tuning, and of every twin from random weights.")
    batch_size: int = Field(4, ge=1, description="Users in such a step.")
    learning_rates: Rates = Field(
        (5e-4, 2e-3),
        description="Learning rates tried; the best on held-back labels is taken, for each method by itself.",
    )
    dense_labels: tuple[Share, ...] = Field(
        (1.0,),
        description="Shares of the labels at which the twin with dense attention is trained, the costliest method by "
        "far; empty leaves it out.",
    )
    gru_width: int = Field(128, ge=4, le=4096, description="Hidden width of the GRU.")
    gru_steps: int = Field(2000, ge=1, description="Steps of the GRU: more than the others', for they are quick.")

    ridge_orders: Counts = Field(
        (1, 2, 4, 6, 8, 12), description="Orders of the autoregression that a sample's history chooses from."
    )
    ridge_penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-12, 1e-8, 1e-5, 1e-3, 1e-2, 1e-1),
        min_length=1,
        description="Ridge penalties it chooses from, as a share of the mean power of the regressors.",
    )

    @model_validator(mode="after")
    def _ascending(self) -> "PredictionSettings":
        for name in ("horizons", "labels"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"training.evaluation.prediction.{name} {list(values)} must ascend, each value once")
        if unknown := set(self.dense_labels) - set(self.labels):
            msg = f"training.evaluation.prediction.dense_labels {sorted(unknown)} must be among its labels {list(self.labels)}"
            raise ValueError(msg)
        return self
