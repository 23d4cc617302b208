"""The quickstart in seconds, with either model: what the tests of flows run."""

SMALL = {
    "area.scenes": 4,
    "area.split.validation": 0.25,
    "users.minimum": 24,
    "users.maximum": 30,
    "solver.rays": 20_000,
    "solver.max_depth": 2,
    "store.unit": 2,
    "training.epochs": 1,
    "training.threads": 1,
    "training.batch_size": 8,
    "training.evaluation.max_users": 24,
    "training.evaluation.heads.seeds": 2,
    "training.evaluation.heads.steps": 5,
    "training.evaluation.heads.learning_rates": [0.003],
    "training.evaluation.heads.finetune_steps": 2,
    "training.evaluation.heads.finetune_rates": [0.001],
    "training.evaluation.localization.labels": [6, 12],
    "training.evaluation.cross_scene.labels": [0, 6],
    "training.evaluation.mu_mimo.ratios": [0.5, 1.0],
    "training.evaluation.mu_mimo.hidden": [[], [8]],
    "training.evaluation.su_mimo.ratios": [0.5, 1.0],
}
SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
