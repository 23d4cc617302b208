"""Names of everything that an evaluation measures: the keys of its records, with their meaning and unit.

Code selects records by these names alone. How they read in a report or on a console, `wavecity.model.results.words` says.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Better = Literal["lower", "higher"]


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


class Metric(StrEnum):
    """What is measured."""

    CSI_NMSE = "csi_nmse"
    PATH_ANGLE_ERROR = "path_angle_error"
    DIRECTION_TOP1 = "direction_top1"
    DIRECTION_TOP5 = "direction_top5"
    HIDDEN_LOCATION_ERROR = "hidden_location_error"
    OCCUPANCY_PRECISION = "occupancy_precision"
    OCCUPANCY_F1 = "occupancy_f1"
    CSI_LOSS = "csi_loss"
    LOCATION_LOSS = "location_loss"
    OCCUPANCY_LOSS = "occupancy_loss"
    SPECTRUM_LOSS = "spectrum_loss"
    LOCATION_ERROR = "location_error"
    CROSS_LOCATION_ERROR = "cross_location_error"
    SILHOUETTE = "silhouette"
    BEAM_TOP1 = "beam_top1"
    BEAM_TOP5 = "beam_top5"
    MU_RATE = "mu_rate"
    RECEIVE_TOP2 = "receive_top2"
    TRANSMIT_TOP2 = "transmit_top2"
    BEAM_PAIR = "beam_pair"
    SU_RATE = "su_rate"
    LATENCY = "latency"
    PREDICTION_NMSE = "prediction_nmse"
    PREDICTION_MEDIAN_NMSE = "prediction_median_nmse"
    PREDICTION_CLEAN_NMSE = "prediction_clean_nmse"
    ATTENTION_FACTOR = "attention_factor"
    EQUIVARIANCE_ERROR = "equivariance_error"
    TRAINED_EQUIVARIANCE_ERROR = "trained_equivariance_error"
    SCALE_EQUIVARIANCE_ERROR = "scale_equivariance_error"
    ESTIMATION_NMSE = "estimation_nmse"
    ESTIMATION_OWN_NMSE = "estimation_own_nmse"
    ESTIMATION_SCALE_NMSE = "estimation_scale_nmse"
    FORECAST_NMSE = "forecast_nmse"
    FORECAST_OWN_NMSE = "forecast_own_nmse"
    FORECAST_SCALE_NMSE = "forecast_scale_nmse"
    FORWARD_TIME = "forward_time"
    WRAPPER_COST = "wrapper_cost"


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is.

    Attributes
    ----------
    title : str
        In a report.
    unit : str
    better : {"lower", "higher"}
    meaning : str
    axis : Axis, optional
        What x is for methods that have one.
    whole : str
        How a condition reads in which nothing is held fixed.
    table : {"shown", "folded", "none"}
        Where the report lists it.
    counted : str
        What `n` of a record counts.
    """

    title: str
    unit: str
    better: Better
    meaning: str
    axis: Axis | None = None
    whole: str = ""
    table: Literal["shown", "folded", "none"] = "shown"
    counted: str = "users"


_SHARE, _SHIFT, _USERS = Axis.LABEL_SHARE, Axis.SHIFT, Axis.TRAINING_USERS
METRICS: dict[Metric, MetricInfo] = {
    Metric.CSI_NMSE: MetricInfo("Masked CSI, normalised squared error", "dB", "lower",
        "mean over users of the squared error at the masked antennas over the energy there"),
    Metric.PATH_ANGLE_ERROR: MetricInfo("Angle of the strongest path, mean error", "°", "lower",
        "mean angle between the strongest direction of the whole CSI and that of the CSI filled in"),
    Metric.DIRECTION_TOP1: MetricInfo("Strongest direction of the spectrum, top 1", "%", "higher",
        "share of users whose strongest bin of the spectrum is the predicted one"),
    Metric.DIRECTION_TOP5: MetricInfo("Strongest direction of the spectrum, top 5", "%", "higher",
        "share of users whose strongest bin of the spectrum is among the five strongest predicted"),
    Metric.HIDDEN_LOCATION_ERROR: MetricInfo("Hidden location, median error", "m", "lower",
        "median distance between true and predicted position, from partial CSI and the scene"),
    Metric.OCCUPANCY_PRECISION: MetricInfo("Masked occupancy, average precision", "", "higher",
        "average precision over the masked cells of all users"),
    Metric.OCCUPANCY_F1: MetricInfo("Masked occupancy, F1 (threshold from validation scenes)", "", "higher",
        "F1 score over the masked cells of all users"),
    Metric.CSI_LOSS: MetricInfo("Loss of masked CSI (eq. 2)", "", "lower", "the pretraining's loss of masked CSI"),
    Metric.LOCATION_LOSS: MetricInfo("Loss of the hidden location (eq. 3)", "", "lower",
        "the pretraining's loss of the hidden location"),
    Metric.OCCUPANCY_LOSS: MetricInfo("Loss of masked occupancy (eq. 4)", "", "lower",
        "the pretraining's loss of masked occupancy"),
    Metric.SPECTRUM_LOSS: MetricInfo("Loss of the spectrum (eq. 6, or its KL form)", "", "lower",
        "the pretraining's loss of the spectrum"),
    Metric.LOCATION_ERROR: MetricInfo("Localisation, median error", "m", "lower",
        "median distance between true and predicted position, heads trained in the scene", Axis.LABELS, "all scenes"),
    Metric.CROSS_LOCATION_ERROR: MetricInfo("Cross-scene localisation, median error", "m", "lower",
        "median distance between true and predicted position, heads trained on other scenes", Axis.LABELS, "unseen scenes"),
    Metric.SILHOUETTE: MetricInfo("Silhouette of clusters", "", "higher",
        "mean silhouette score of groups of users in a space of features, -1 to 1", table="none"),
    Metric.BEAM_TOP1: MetricInfo("Beam, top-1 accuracy", "%", "higher",
        "share of users whose best beam is the predicted one", _SHARE, "linear probe"),
    Metric.BEAM_TOP5: MetricInfo("Beam, top-5 accuracy", "%", "higher",
        "share of users whose best beam is among the five predicted", _SHARE, "linear probe"),
    Metric.MU_RATE: MetricInfo("MU-MIMO sum-rate", "bit/s/Hz", "higher",
        "mean over clusters of the sum-rate of their users with the predicted beams", _SHARE, "linear probe", counted="clusters"),
    Metric.RECEIVE_TOP2: MetricInfo("Receive beams, top-2 accuracy", "%", "higher",
        "mean share of the two labelled receive beams that are among the two predicted", _SHARE, "two linear probes"),
    Metric.TRANSMIT_TOP2: MetricInfo("Transmit beams, top-2 accuracy", "%", "higher",
        "mean share of the two labelled transmit beams that are among the two predicted", _SHARE, "two linear probes"),
    Metric.BEAM_PAIR: MetricInfo("Dominant beam pair, accuracy", "%", "higher",
        "share of users whose first pair of beams is the predicted one", _SHARE, "two linear probes"),
    Metric.SU_RATE: MetricInfo("SU-MIMO sum-rate", "bit/s/Hz", "higher",
        "mean over users of the rate of two streams with the predicted beams", _SHARE, "two linear probes"),
    Metric.LATENCY: MetricInfo("Latency, batch of 1", "ms", "lower", "median time of one inference on the CPU",
        counted="inferences timed"),
    Metric.PREDICTION_NMSE: MetricInfo("Channel prediction, NMSE", "dB", "lower",
        "mean over users of a snapshot's squared error over its energy, from noisy snapshots", _SHARE),
    Metric.PREDICTION_MEDIAN_NMSE: MetricInfo("Channel prediction, median NMSE", "dB", "lower",
        "as prediction_nmse, of the median user", _SHARE, table="folded"),
    Metric.PREDICTION_CLEAN_NMSE: MetricInfo("Channel prediction without noise, NMSE", "dB", "lower",
        "as prediction_nmse, from snapshots without noise", _SHARE, table="folded"),
    Metric.ATTENTION_FACTOR: MetricInfo("Pairs of dense over those of sparse attention", "×", "higher",
        "number of tokens over the mean number that a token attends to", table="none",
        counted="tokens"),
    Metric.EQUIVARIANCE_ERROR: MetricInfo("Equivariance error", "dB", "lower",
        "power by which the run's model's output for shifted channels is not its shifted output, over that of the output",
        _SHIFT),
    Metric.TRAINED_EQUIVARIANCE_ERROR: MetricInfo("Equivariance error, same training", "dB", "lower",
        "equivariance error of the models trained by the task", _SHIFT),
    Metric.SCALE_EQUIVARIANCE_ERROR: MetricInfo("Equivariance error over scale", "dB", "lower",
        "equivariance error of random shifts, by size and number of training users", _USERS, table="folded"),
    Metric.ESTIMATION_NMSE: MetricInfo("Masked CSI, NMSE", "dB", "lower",
        "mean over users of the squared error of masked CSI over its energy, of the models trained by the task"),
    Metric.ESTIMATION_OWN_NMSE: MetricInfo("Masked CSI, NMSE, the run's model", "dB", "lower",
        "as estimation_nmse, of the run's own model"),
    Metric.ESTIMATION_SCALE_NMSE: MetricInfo("Masked CSI, NMSE over scale", "dB", "lower",
        "as estimation_nmse, by size and number of training users", _USERS, table="folded"),
    Metric.FORECAST_NMSE: MetricInfo("Channel prediction, NMSE", "dB", "lower",
        "mean over users of the squared error of all predicted snapshots over their energy, of the models trained by the task"),
    Metric.FORECAST_OWN_NMSE: MetricInfo("Channel prediction, NMSE, the run's model", "dB", "lower",
        "as forecast_nmse, of the run's own model"),
    Metric.FORECAST_SCALE_NMSE: MetricInfo("Channel prediction, NMSE over scale", "dB", "lower",
        "as forecast_nmse, by size and number of training users", _USERS, table="folded"),
    Metric.FORWARD_TIME: MetricInfo("Time of a forward pass", "ms", "lower", "median time of a forward pass on the CPU",
        counted="calls"),
    Metric.WRAPPER_COST: MetricInfo("Cost of the wrapper", "%", "lower",
        "time that the wrapper adds to a forward pass, over that of the pass", counted="calls"),
}  # fmt: skip


class Method(StrEnum):
    """What is compared."""

    MODEL = "model"
    MODEL_SPECTRUM = "model_spectrum"
    MODEL_FILLED_CSI = "model_filled_csi"
    MODEL_LOCATION_HEAD = "model_location_head"
    MODEL_SPECTRUM_BEAM = "model_spectrum_beam"
    MODEL_PYTORCH = "model_pytorch"
    MODEL_TORCH_EXPORT = "model_torch_export"
    MODEL_ONNX = "model_onnx"
    MODEL_FINE_TUNED = "model_fine_tuned"
    MODEL_ZERO_SHOT = "model_zero_shot"
    WRAPPED = "wrapped"
    WRAPPED_PRETRAINED = "wrapped_pretrained"
    PHYSC = "physc"
    PHYSC_MLP = "physc_mlp"
    PHYSC_PROBE = "physc_probe"
    PHYSC_HEAD = "physc_head"
    PHYSC_FINE_TUNED = "physc_fine_tuned"
    TWIN = "twin"
    DENSE_TWIN = "dense_twin"
    UNTRAINED_MLP = "untrained_mlp"
    UNTRAINED_PROBE = "untrained_probe"
    RAW = "raw"
    RAW_CNN = "raw_cnn"
    RAW_PROBE = "raw_probe"
    RAW_HEAD = "raw_head"
    DFT_PROBE = "dft_probe"
    GRU = "gru"
    KNN = "knn"
    KNN_LEVEL = "knn_level"
    KNN_TRAINING = "knn_training"
    MEAN_LABELLED = "mean_labelled"
    MEAN_TRAINING = "mean_training"
    NEIGHBOUR_MEAN = "neighbour_mean"
    OCCUPANCY_PRIOR = "occupancy_prior"
    PREVALENCE = "prevalence"
    ALL_OCCUPIED = "all_occupied"
    ZEROS = "zeros"
    ZERO_FILLED = "zero_filled"
    ZERO_FILLED_BEAM = "zero_filled_beam"
    OMP = "omp"
    OMP_BEAM = "omp_beam"
    OMP_4_BEAM = "omp_4_beam"
    LMMSE = "lmmse"
    SBL = "sbl"
    RIDGE = "ridge"
    PERSISTENCE = "persistence"
    FIRST_GUESS = "first_guess"
    EXHAUSTIVE_SEARCH = "exhaustive_search"
    VANILLA_PRETRAINED = "vanilla_pretrained"
    VANILLA = "vanilla"
    AUGMENTED = "augmented"
    PENALISED = "penalised"
    SPARSE_ATTENTION = "sparse_attention"


@dataclass(frozen=True)
class MethodInfo:
    """What a method is.

    Attributes
    ----------
    title : str
        In a report; `{paths}` stands for the number of paths of a pursuit.
    regime : Regime
    ours : bool
        Whether it is the pretrained model or a head on it.
    bound : bool
        Whether no method can be ahead of it by more than luck: no rival.
    """

    title: str
    regime: Regime
    ours: bool = False
    bound: bool = False


_PRETRAINED, _FROZEN, _FINE_TUNED = Regime.PRETRAINED, Regime.FROZEN, Regime.FINE_TUNED
_SCRATCH, _RANDOM, _SUPERVISED, _UNTRAINED = (
    Regime.FROM_SCRATCH, Regime.RANDOM, Regime.SUPERVISED, Regime.UNTRAINED,
)  # fmt: skip
METHODS: dict[Method, MethodInfo] = {
    Method.MODEL: MethodInfo("model", _PRETRAINED, ours=True),
    Method.MODEL_SPECTRUM: MethodInfo("model, spectrum", _PRETRAINED, ours=True),
    Method.MODEL_FILLED_CSI: MethodInfo("model, filled CSI", _PRETRAINED, ours=True),
    Method.MODEL_LOCATION_HEAD: MethodInfo("model's location head, no labels", _PRETRAINED, ours=True),
    Method.MODEL_SPECTRUM_BEAM: MethodInfo("model's spectrum, no labels", _PRETRAINED, ours=True),
    Method.MODEL_PYTORCH: MethodInfo("model in PyTorch", _PRETRAINED, ours=True),
    Method.MODEL_TORCH_EXPORT: MethodInfo("model in torch.export", _PRETRAINED, ours=True),
    Method.MODEL_ONNX: MethodInfo("model in ONNX Runtime", _PRETRAINED, ours=True),
    Method.MODEL_FINE_TUNED: MethodInfo("model, fine-tuned", _FINE_TUNED, ours=True),
    Method.MODEL_ZERO_SHOT: MethodInfo("model, no labels", _PRETRAINED, ours=True),
    Method.WRAPPED: MethodInfo("model in the wrapper", _SCRATCH, ours=True),
    Method.WRAPPED_PRETRAINED: MethodInfo("model in the wrapper", _PRETRAINED, ours=True),
    Method.PHYSC: MethodInfo("[PHYSC]", _PRETRAINED, ours=True),
    Method.PHYSC_MLP: MethodInfo("[PHYSC] + MLP", _FROZEN, ours=True),
    Method.PHYSC_PROBE: MethodInfo("[PHYSC], linear probe", _FROZEN, ours=True),
    Method.PHYSC_HEAD: MethodInfo("[PHYSC], head", _FROZEN, ours=True),
    Method.PHYSC_FINE_TUNED: MethodInfo("[PHYSC], fine-tuned", _FINE_TUNED, ours=True),
    Method.TWIN: MethodInfo("from-scratch twin", _SCRATCH),
    Method.DENSE_TWIN: MethodInfo("dense attention twin", _SCRATCH),
    Method.UNTRAINED_MLP: MethodInfo("untrained [PHYSC] + MLP", _RANDOM),
    Method.UNTRAINED_PROBE: MethodInfo("untrained [PHYSC], linear probe", _RANDOM),
    Method.RAW: MethodInfo("raw CSI", _UNTRAINED),
    Method.RAW_CNN: MethodInfo("raw CSI + CNN", _SUPERVISED),
    Method.RAW_PROBE: MethodInfo("raw CSI, linear probe", _SUPERVISED),
    Method.RAW_HEAD: MethodInfo("raw CSI, head", _SUPERVISED),
    Method.DFT_PROBE: MethodInfo("|zero-filled DFT|, linear probe", _SUPERVISED),
    Method.GRU: MethodInfo("GRU", _SUPERVISED),
    Method.KNN: MethodInfo("kNN on |DFT|", _UNTRAINED),
    Method.KNN_LEVEL: MethodInfo("kNN on |DFT| and level", _UNTRAINED),
    Method.KNN_TRAINING: MethodInfo("kNN on |DFT| of training scenes", _UNTRAINED),
    Method.MEAN_LABELLED: MethodInfo("mean of labelled users", _UNTRAINED),
    Method.MEAN_TRAINING: MethodInfo("mean of training users", _UNTRAINED),
    Method.NEIGHBOUR_MEAN: MethodInfo("mean of visible neighbours", _UNTRAINED),
    Method.OCCUPANCY_PRIOR: MethodInfo("prior of training scenes", _UNTRAINED),
    Method.PREVALENCE: MethodInfo("prevalence", _UNTRAINED),
    Method.ALL_OCCUPIED: MethodInfo("all occupied", _UNTRAINED),
    Method.ZEROS: MethodInfo("zeros", _UNTRAINED),
    Method.ZERO_FILLED: MethodInfo("zero-filled DFT", _UNTRAINED),
    Method.ZERO_FILLED_BEAM: MethodInfo("zero-filled DFT, no labels", _UNTRAINED),
    Method.OMP: MethodInfo("OMP{paths}", _UNTRAINED),
    Method.OMP_BEAM: MethodInfo("OMP{paths}, no labels", _UNTRAINED),
    Method.OMP_4_BEAM: MethodInfo("OMP, 4 paths, no labels", _UNTRAINED),
    Method.LMMSE: MethodInfo("LMMSE", _UNTRAINED),
    Method.SBL: MethodInfo("sparse Bayesian learning", _UNTRAINED),
    Method.RIDGE: MethodInfo("ridge (AR) of each sample", _UNTRAINED),
    Method.PERSISTENCE: MethodInfo("persistence", _UNTRAINED),
    Method.FIRST_GUESS: MethodInfo("first guess, no network", _UNTRAINED),
    Method.EXHAUSTIVE_SEARCH: MethodInfo("exhaustive search", _UNTRAINED, bound=True),
    Method.VANILLA_PRETRAINED: MethodInfo("vanilla as pretrained", _PRETRAINED),
    Method.VANILLA: MethodInfo("vanilla", _SCRATCH),
    Method.AUGMENTED: MethodInfo("augmented", _SCRATCH),
    Method.PENALISED: MethodInfo("penalised", _SCRATCH),
    Method.SPARSE_ATTENTION: MethodInfo("sparse attention", _UNTRAINED),
}


def is_ours(method: Method) -> bool:
    """Whether a method is the pretrained model or a head on it."""
    return METHODS[method].ours


def is_rival(method: Method) -> bool:
    """Whether a method is one that the model is compared with; an upper bound is not."""
    return not (METHODS[method].ours or METHODS[method].bound)
