"""A model that is trained on DeepMIMO scenarios, and a task that needs their paths."""

import numpy as np
from scenarios import write_scenario

from wavecity.dataset.exchange.scenarios import import_scenarios
from wavecity.model.results.records import read_records
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain

EDGE = 16


def test_a_model_is_trained_on_scenarios_of_deepmimo(tiny, tmp_path):
    write_scenario(tmp_path / "town", users=80)
    options = {"columns": EDGE, "rows": EDGE, "test": 0.4, "licence": "CC-BY-4.0", "tile_size": 240.0}
    store = str(tmp_path / "store")
    import_scenarios([tmp_path / "town"], store, options)
    model = {**tiny.model.model_dump(), "spectrum_size": EDGE}
    heads = {**tiny.evaluation.heads.model_dump(), "seeds": 1, "steps": 4, "finetune_steps": 0}
    evaluation = {**tiny.evaluation.model_dump(), "heads": heads, "masks": [0.7], "max_users": 20}
    settings = TrainingSettings.model_validate(
        {**tiny.model_dump(), "model": model, "evaluation": evaluation, "epochs": 1}
    )
    pretrain(store, settings, tmp_path / "run", seed=1)
    card = load_model(tmp_path / "run").card["data"]
    assert (card["licence"], card["frequency_hz"]) == ("CC-BY-4.0", 3.5e9)
    # Derived from the imported paths.
    result = evaluate(tmp_path / "run", store, "su-mimo", settings, 1)
    records = read_records(tmp_path / "run" / result["table"], "su-mimo")
    assert records
    assert np.isfinite([record.value for record in records]).all()
