"""How long one inference takes on the CPU: in PyTorch and exported."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.data.users import WirelessData, gather
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.claims import Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.training.export import DeployedEncoder, Run, compare, example_inputs, write_exported, write_onnx

# Runs that are timed, after as many as it takes to warm up.
WARM_UP, RUNS = 20, 200


def latency(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Milliseconds of one inference, batch 1, on the CPU: PyTorch, torch.export and ONNX Runtime on the same user."""
    share = settings.localization.csi
    visible = predictor.pilots(share, seed)
    encoder = DeployedEncoder(predictor.model, predictor.settings, predictor.statistics, visible).eval()
    user = gather(data.splits["test"], 1)
    inputs = (torch.view_as_real(user.csi).contiguous(), data.scenes.height[user.scene])
    condition = Condition(csi_masked=1 - share, threads=torch.get_num_threads())
    facts: Facts = {"threads": torch.get_num_threads(), "runs": RUNS, "visible_patches": len(visible)}
    ways: dict[Method, Run] = {Method.MODEL_PYTORCH: encoder}
    with tempfile.TemporaryDirectory() as folder:
        for name, file, write in (
            (Method.MODEL_TORCH_EXPORT, "encoder.pt2", write_exported),
            (Method.MODEL_ONNX, "encoder.onnx", write_onnx),
        ):
            try:
                ways[name] = write(encoder, Path(folder) / file)
            except InputError as error:
                facts[f"not measured: {name}"] = str(error)
                continue
            facts[f"difference, {name}"] = compare(encoder, ways[name], example_inputs(predictor.model, 3))
            facts[f"megabytes, {name}"] = round((Path(folder) / file).stat().st_size / 1e6, 2)
        times = {method: _milliseconds(way, inputs) for method, way in ways.items()}
    with torch.no_grad():
        deployed = encoder(*inputs)[0]
    # What the tasks were evaluated with.
    facts["physc_matches_predictor"] = float((deployed - predictor.encode(user, visible)).abs().max())
    facts |= {f"90th percentile ms, {name}": float(np.percentile(values, 90)) for name, values in times.items()}
    records = [
        Record(Metric.LATENCY, method, float(np.median(values)), seed, RUNS, condition=condition)
        for method, values in times.items()
    ]
    return Findings(records, facts)


@torch.no_grad()
def _milliseconds(run: Run, inputs: tuple[Tensor, Tensor]) -> list[float]:
    for _ in range(WARM_UP):
        run(*inputs)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run(*inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return times


TASK: TaskName = "latency"
# Readings of "in the order of milliseconds" [ours]: what counts as so, and what as the opposite.
QUICK, SLOW = 10.0, 100.0
_WAYS = (Method.MODEL_PYTORCH, Method.MODEL_TORCH_EXPORT, Method.MODEL_ONNX)
CLAIMS = (
    Claim("latency", "", "section 3.2", "One inference takes milliseconds.",
          f"median, quickest way on this CPU, batch of 1, a model of the size stated below; below {QUICK:g} ms counts, "
          f"above {SLOW:g} ms is the opposite", TASK, "level", Select(Metric.LATENCY, _WAYS), -QUICK, -SLOW, 1, 0),
)  # fmt: skip
SPECS = (
    TaskSpec(TASK, "multimodal", "Time of one inference", latency, frozenset({"batch_size", "localization"}), (), CLAIMS,
             splits=("test",)),
)  # fmt: skip
