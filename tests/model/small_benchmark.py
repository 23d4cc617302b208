"""A benchmark of seconds, on any dataset."""

from wavecity.model.benchmark.protocol import Protocol


def protocol(**evaluation):
    """Seconds instead of minutes, on any dataset."""
    heads = {"seeds": 2, "steps": 150, "learning_rates": [0.01], "finetune_steps": 0}
    small = {
        "heads": heads,
        "localization": {"csi": 0.25, "labels": [10, 60], "test_share": 0.4},
        "cross_scene": {"labels": [0]},
        "mu_mimo": {"csi": 0.25, "snr": 10.0, "cluster": 4, "ratios": [0.2, 0.8]},
        "su_mimo": {"csi": 0.25, "ratios": [0.8]},
    }
    content = {"name": "small", "version": 1, "cities": None, "seed": 3, "csi_patch": 4}
    tasks = ["localization", "cross-localization", "mu-mimo", "su-mimo"]
    return Protocol.model_validate({**content, "tasks": tasks, "evaluation": {**small, **evaluation}})
