"""Names of everything that an evaluation measures: the keys of its records, with their meaning and unit.

Code selects records by these names alone. How they read in a report or on a console, `wavecity.model.results.words` says.
"""

from enum import StrEnum
from typing import Literal

Better = Literal["lower", "higher"]
Table = Literal["shown", "folded", "none"]


class Axis(StrEnum):
    """What x of a record is."""

    LABELS = "labels"
    LABEL_SHARE = "label_share"
    SHIFT = "shift_bins"
    TRAINING_USERS = "training_users"


class Regime(StrEnum):
    """How a method came by what it knows."""

    PRETRAINED = "pretrained"
    FROZEN = "frozen"
    FINE_TUNED = "fine_tuned"
    FROM_SCRATCH = "from_scratch"
    RANDOM = "random"
    SUPERVISED = "supervised"
    UNTRAINED = "untrained"


class TestSet(StrEnum):
    """Test users of `equivariance`."""

    __test__ = False  # no test of pytest's

    SEEN = "seen"
    UNSEEN = "unseen"
    MODULATED = "modulated"
    VEHICLES = "vehicles"
    SHIFTED = "shifted"


_SHARE, _SHIFT, _USERS = Axis.LABEL_SHARE, Axis.SHIFT, Axis.TRAINING_USERS


class Metric(StrEnum):
    """What is measured.

    Examples
    --------
    >>> Metric("su_rate").unit, Metric.SU_RATE.axis.value
    ('bit/s/Hz', 'label_share')
    """

    label: str  # How it is called in a report
    unit: str
    better: Better
    meaning: str
    axis: Axis | None  # What x is for methods that have one
    whole: str  # How a condition reads in which nothing is held fixed
    table: Table  # Where the report lists it
    counted: str  # What `n` of a record counts

    def __new__(
        cls,
        key: str,
        label: str = "",
        unit: str = "",
        better: Better = "higher",
        meaning: str = "",
        axis: Axis | None = None,
        whole: str = "",
        table: Table = "shown",
        counted: str = "users",
    ) -> "Metric":
        """Of all this, `Metric("su_rate")` needs the key alone."""
        metric = str.__new__(cls, key)
        metric._value_ = key
        metric.label, metric.unit, metric.better, metric.meaning = label, unit, better, meaning
        metric.axis, metric.whole, metric.table, metric.counted = axis, whole, table, counted
        return metric

    @property
    def sign(self) -> int:
        """What a value is multiplied by for the highest to be the best."""
        return 1 if self.better == "higher" else -1

    # fmt: off
    CSI_NMSE = ("csi_nmse", "Masked CSI, normalised squared error", "dB", "lower",
        "mean over users of the squared error at the masked antennas over the energy there")
    PATH_ANGLE_ERROR = ("path_angle_error", "Angle of the strongest path, mean error", "°", "lower",
        "mean angle between the strongest direction of the whole CSI and that of the CSI filled in")
    DIRECTION_TOP1 = ("direction_top1", "Strongest direction of the spectrum, top 1", "%", "higher",
        "share of users whose strongest bin of the spectrum is the predicted one")
    DIRECTION_TOP5 = ("direction_top5", "Strongest direction of the spectrum, top 5", "%", "higher",
        "share of users whose strongest bin of the spectrum is among the five strongest predicted")
    HIDDEN_LOCATION_ERROR = ("hidden_location_error", "Hidden location, median error", "m", "lower",
        "median distance between true and predicted position, from partial CSI and the scene")
    HIDDEN_LOCATION_P90 = ("hidden_location_p90", "Hidden location, 90 % of the errors", "m", "lower",
        "distance between true and predicted position that 90 % of the users do not exceed, from partial CSI and the scene")
    REGION_HELD = ("region_held", "Users within the region stated for them", "%", "higher",
        "share of users within the smallest region that holds the stated share of the model's mixture", None, "", "folded")
    OCCUPANCY_PRECISION = ("occupancy_precision", "Masked occupancy, average precision", "", "higher",
        "average precision over the masked cells of all users")
    OCCUPANCY_F1 = ("occupancy_f1", "Masked occupancy, F1 (threshold from validation scenes)", "", "higher",
        "F1 score over the masked cells of all users")
    CSI_LOSS = "csi_loss", "Loss of masked CSI (eq. 2)", "", "lower", "the pretraining's loss of masked CSI"
    LOCATION_LOSS = ("location_loss", "Loss of the hidden location (eq. 3)", "", "lower",
        "the pretraining's loss of the hidden location")
    OCCUPANCY_LOSS = ("occupancy_loss", "Loss of masked occupancy (eq. 4)", "", "lower",
        "the pretraining's loss of masked occupancy")
    SPECTRUM_LOSS = ("spectrum_loss", "Loss of the spectrum (eq. 6, or its KL form)", "", "lower",
        "the pretraining's loss of the spectrum")
    LOCATION_ERROR = ("location_error", "Localisation, median error", "m", "lower",
        "median distance between true and predicted position, heads trained in the scene", Axis.LABELS, "all scenes")
    CROSS_LOCATION_ERROR = ("cross_location_error", "Cross-scene localisation, median error", "m", "lower",
        "median distance between true and predicted position, heads trained on other scenes", Axis.LABELS, "unseen scenes")
    SILHOUETTE = ("silhouette", "Silhouette of clusters", "", "higher",
        "mean silhouette score of groups of users in a space of features, -1 to 1", None, "", "none")
    BEAM_TOP1 = ("beam_top1", "Beam, top-1 accuracy", "%", "higher",
        "share of users whose best beam is the predicted one", _SHARE, "linear probe")
    BEAM_TOP5 = ("beam_top5", "Beam, top-5 accuracy", "%", "higher",
        "share of users whose best beam is among the five predicted", _SHARE, "linear probe")
    MU_RATE = ("mu_rate", "MU-MIMO sum-rate", "bit/s/Hz", "higher",
        "mean over clusters of the sum-rate of their users with the predicted beams", _SHARE, "linear probe", "shown", "clusters")
    RECEIVE_TOP2 = ("receive_top2", "Receive beams, top-2 accuracy", "%", "higher",
        "mean share of the two labelled receive beams that are among the two predicted", _SHARE, "two linear probes")
    TRANSMIT_TOP2 = ("transmit_top2", "Transmit beams, top-2 accuracy", "%", "higher",
        "mean share of the two labelled transmit beams that are among the two predicted", _SHARE, "two linear probes")
    BEAM_PAIR = ("beam_pair", "Dominant beam pair, accuracy", "%", "higher",
        "share of users whose first pair of beams is the predicted one", _SHARE, "two linear probes")
    SU_RATE = ("su_rate", "SU-MIMO sum-rate", "bit/s/Hz", "higher",
        "mean over users of the rate of two streams with the predicted beams", _SHARE, "two linear probes")
    FEW_LOCATION_ERROR = ("few_location_error", "Location with few labels, median error", "m", "lower",
        "median distance between true and predicted position in unseen scenes, from labelled users of training scenes",
        Axis.LABELS, "unseen scenes")
    FEW_NLOS_ACCURACY = ("few_nlos_accuracy", "Line of sight with few labels, balanced accuracy", "%", "higher",
        "mean of the shares of users in and out of sight who are found to be so, in unseen scenes", Axis.LABELS, "unseen scenes")
    FEW_BEAM_TOP1 = ("few_beam_top1", "Beam with few labels, top-1 accuracy", "%", "higher",
        "share of users of unseen scenes whose best beam is the predicted one", Axis.LABELS, "unseen scenes")
    LATENCY = ("latency", "Latency, batch of 1", "ms", "lower",
        "median time of one inference on the CPU", None, "", "shown", "inferences timed")
    PREDICTION_NMSE = ("prediction_nmse", "Channel prediction, NMSE", "dB", "lower",
        "mean over users of a snapshot's squared error over its energy, from noisy snapshots", _SHARE)
    PREDICTION_MEDIAN_NMSE = ("prediction_median_nmse", "Channel prediction, median NMSE", "dB", "lower",
        "as prediction_nmse, of the median user", _SHARE, "", "folded")
    PREDICTION_CLEAN_NMSE = ("prediction_clean_nmse", "Channel prediction without noise, NMSE", "dB", "lower",
        "as prediction_nmse, from snapshots without noise", _SHARE, "", "folded")
    ATTENTION_FACTOR = ("attention_factor", "Pairs of dense over those of sparse attention", "×", "higher",
        "number of tokens over the mean number that a token attends to", None, "", "none", "tokens")
    EQUIVARIANCE_ERROR = ("equivariance_error", "Equivariance error", "dB", "lower",
        "power by which the run's model's output for shifted channels is not its shifted output, over that of the output", _SHIFT)
    TRAINED_EQUIVARIANCE_ERROR = ("trained_equivariance_error", "Equivariance error, same training", "dB", "lower",
        "equivariance error of the models trained by the task", _SHIFT)
    SCALE_EQUIVARIANCE_ERROR = ("scale_equivariance_error", "Equivariance error over scale", "dB", "lower",
        "equivariance error of random shifts, by size and number of training users", _USERS, "", "folded")
    ESTIMATION_NMSE = ("estimation_nmse", "Masked CSI, NMSE", "dB", "lower",
        "mean over users of the squared error of masked CSI over its energy, of the models trained by the task")
    ESTIMATION_OWN_NMSE = ("estimation_own_nmse", "Masked CSI, NMSE, the run's model", "dB", "lower",
        "as estimation_nmse, of the run's own model")
    ESTIMATION_SCALE_NMSE = ("estimation_scale_nmse", "Masked CSI, NMSE over scale", "dB", "lower",
        "as estimation_nmse, by size and number of training users", _USERS, "", "folded")
    FORECAST_NMSE = ("forecast_nmse", "Channel prediction, NMSE", "dB", "lower",
        "mean over users of the squared error of all predicted snapshots over their energy, of the models trained by the task")
    FORECAST_OWN_NMSE = ("forecast_own_nmse", "Channel prediction, NMSE, the run's model", "dB", "lower",
        "as forecast_nmse, of the run's own model")
    FORECAST_SCALE_NMSE = ("forecast_scale_nmse", "Channel prediction, NMSE over scale", "dB", "lower",
        "as forecast_nmse, by size and number of training users", _USERS, "", "folded")
    RADIO_MAP_RMSE = ("radio_map_rmse", "Radio map, RMSE", "dB", "lower",
        "root mean square error of the path gain over open cells of unseen scenes; gains below -160 dB count as that", None,
        "unseen scenes", "shown", "cells")
    RADIO_MAP_MAE = ("radio_map_mae", "Radio map, mean absolute error", "dB", "lower",
        "as radio_map_rmse, the mean of the absolute errors", None, "unseen scenes", "folded", "cells")
    FORWARD_TIME = ("forward_time", "Time of a forward pass", "ms", "lower",
        "median time of a forward pass on the CPU", None, "", "shown", "calls")
    WRAPPER_COST = ("wrapper_cost", "Cost of the wrapper", "%", "lower",
        "time that the wrapper adds to a forward pass, over that of the pass", None, "", "shown", "calls")
    # fmt: on


_PRETRAINED, _FROZEN, _FINE_TUNED = Regime.PRETRAINED, Regime.FROZEN, Regime.FINE_TUNED
_SCRATCH, _RANDOM = Regime.FROM_SCRATCH, Regime.RANDOM
_SUPERVISED, _UNTRAINED = Regime.SUPERVISED, Regime.UNTRAINED


class Method(StrEnum):
    """What is compared."""

    label: str  # How it is called in a report; `{paths}` stands for the number of paths of a pursuit
    regime: Regime
    ours: bool  # Whether it is the pretrained model or a head on it
    # Whether the model is compared with it; an upper bound, which no method can exceed by more than luck, is none
    rival: bool

    def __new__(
        cls, key: str, label: str = "", regime: Regime = Regime.UNTRAINED, ours: bool = False, bound: bool = False
    ) -> "Method":
        """As `Metric` has it."""
        method = str.__new__(cls, key)
        method._value_ = key
        method.label, method.regime, method.ours, method.rival = label, regime, ours, not (ours or bound)
        return method

    MODEL = "model", "model", _PRETRAINED, True
    MODEL_SPECTRUM = "model_spectrum", "model, spectrum", _PRETRAINED, True
    MODEL_FILLED_CSI = "model_filled_csi", "model, filled CSI", _PRETRAINED, True
    MODEL_LOCATION_HEAD = "model_location_head", "model's location head, no labels", _PRETRAINED, True
    MODEL_SPECTRUM_BEAM = "model_spectrum_beam", "model's spectrum, no labels", _PRETRAINED, True
    MODEL_PYTORCH = "model_pytorch", "model in PyTorch", _PRETRAINED, True
    MODEL_TORCH_EXPORT = "model_torch_export", "model in torch.export", _PRETRAINED, True
    MODEL_ONNX = "model_onnx", "model in ONNX Runtime", _PRETRAINED, True
    MODEL_FINE_TUNED = "model_fine_tuned", "model, fine-tuned", _FINE_TUNED, True
    MODEL_ZERO_SHOT = "model_zero_shot", "model, no labels", _PRETRAINED, True
    WRAPPED = "wrapped", "model in the wrapper", _SCRATCH, True
    WRAPPED_PRETRAINED = "wrapped_pretrained", "model in the wrapper", _PRETRAINED, True
    PHYSC = "physc", "[PHYSC]", _PRETRAINED, True
    PHYSC_MLP = "physc_mlp", "[PHYSC] + MLP", _FROZEN, True
    PHYSC_PROBE = "physc_probe", "[PHYSC], linear probe", _FROZEN, True
    PHYSC_HEAD = "physc_head", "[PHYSC], head", _FROZEN, True
    PHYSC_FINE_TUNED = "physc_fine_tuned", "[PHYSC], fine-tuned", _FINE_TUNED, True
    ENCODER = "encoder", "encoder under test", _FROZEN, True
    TWIN = "twin", "from-scratch twin", _SCRATCH
    DENSE_TWIN = "dense_twin", "dense attention twin", _SCRATCH
    UNTRAINED_MLP = "untrained_mlp", "untrained [PHYSC] + MLP", _RANDOM
    UNTRAINED_PROBE = "untrained_probe", "untrained [PHYSC], linear probe", _RANDOM
    WAVES = "waves", "recovered waves, no network", _UNTRAINED
    RAW = "raw", "raw CSI", _UNTRAINED
    RAW_CNN = "raw_cnn", "raw CSI + CNN", _SUPERVISED
    RAW_PROBE = "raw_probe", "raw CSI, linear probe", _SUPERVISED
    RAW_HEAD = "raw_head", "raw CSI, head", _SUPERVISED
    DFT_PROBE = "dft_probe", "|zero-filled DFT|, linear probe", _SUPERVISED
    GRU = "gru", "GRU", _SUPERVISED
    UNET = "unet", "U-Net on height map and base station", _SUPERVISED, True
    DISTANCE_FIT = "distance_fit", "distance alone", _SUPERVISED
    KNN = "knn", "kNN on |DFT|", _UNTRAINED
    KNN_LEVEL = "knn_level", "kNN on |DFT| and level", _UNTRAINED
    KNN_TRAINING = "knn_training", "kNN on |DFT| of training scenes", _UNTRAINED
    MEAN_LABELLED = "mean_labelled", "mean of labelled users", _UNTRAINED
    MEAN_TRAINING = "mean_training", "mean of training users", _UNTRAINED
    NEIGHBOUR_MEAN = "neighbour_mean", "mean of visible neighbours", _UNTRAINED
    OCCUPANCY_PRIOR = "occupancy_prior", "prior of training scenes", _UNTRAINED
    PREVALENCE = "prevalence", "prevalence", _UNTRAINED
    ALL_OCCUPIED = "all_occupied", "all occupied", _UNTRAINED
    ZEROS = "zeros", "zeros", _UNTRAINED
    ZERO_FILLED = "zero_filled", "zero-filled DFT", _UNTRAINED
    ZERO_FILLED_BEAM = "zero_filled_beam", "zero-filled DFT, no labels", _UNTRAINED
    OMP = "omp", "OMP{paths}", _UNTRAINED
    OMP_BEAM = "omp_beam", "OMP{paths}, no labels", _UNTRAINED
    OMP_4_BEAM = "omp_4_beam", "OMP, 4 paths, no labels", _UNTRAINED
    LMMSE = "lmmse", "LMMSE", _UNTRAINED
    SBL = "sbl", "sparse Bayesian learning", _UNTRAINED
    SBL_BEAM = "sbl_beam", "sparse Bayesian learning, no labels", _UNTRAINED
    PHYSICS = "physics", "physics localiser, no labels", _UNTRAINED
    RIDGE = "ridge", "ridge (AR) of each sample", _UNTRAINED
    PERSISTENCE = "persistence", "persistence", _UNTRAINED
    FIRST_GUESS = "first_guess", "first guess, no network", _UNTRAINED
    RBF = "rbf", "radial basis functions, 1 % of the cells", _UNTRAINED
    KRIGING = "kriging", "kriging, 1 % of the cells", _UNTRAINED
    EXHAUSTIVE_SEARCH = "exhaustive_search", "exhaustive search", _UNTRAINED, False, True
    VANILLA_PRETRAINED = "vanilla_pretrained", "vanilla as pretrained", _PRETRAINED
    VANILLA = "vanilla", "vanilla", _SCRATCH
    AUGMENTED = "augmented", "augmented", _SCRATCH
    PENALISED = "penalised", "penalised", _SCRATCH
    SPARSE_ATTENTION = "sparse_attention", "sparse attention", _UNTRAINED
