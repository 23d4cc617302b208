"""A small store for the path model: users of the toy scenes in line of sight of a panel of 8 x 8 antennas."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
import toy

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.publish import publish
from wavecity.dataset.reader import open_store
from wavecity.dataset.writer import write_unit
from wavecity.model.path_model.front import Draw

EDGE = 8
SPLITS = ("train", "train", "validation", "test")
USERS = 9
FULL = Draw(seed=1, patches=4)  # all antennas, no noise
RECIPE = {"name": "street", "radio": {"ground_material": "concrete"}, "users": {"height": 1.5}}


def arrays_of(scene: int) -> dict[str, np.ndarray]:
    """The toy's users with channels of a centred panel that faces south."""
    arrays = toy.make_arrays(np.random.default_rng(scene), USERS)
    position = arrays["user_position"].astype(float)
    distance = np.linalg.norm(position, axis=1)
    index = np.arange(EDGE) - (EDGE - 1) / 2
    east, down = position[:, 0] / distance, -position[:, 2] / distance
    phase = index[:, None] * east[:, None, None] + index * down[:, None, None]
    csi = (arrays["paths/gain"][:, 0, None, None] * np.exp(1j * np.pi * phase)).astype(np.complex64)
    beams = (np.abs(np.fft.ifft2(csi)) ** 2).reshape(USERS, -1).argmax(-1).astype(np.int16)
    beams[arrays["outage"]] = -1
    served = ~arrays["outage"]
    arrays["paths/aod_zenith"][:, 0] = np.where(served, np.arccos(position[:, 2] / distance), 0)
    arrays["paths/aod_azimuth"][:, 0] = np.where(served, np.arctan2(position[:, 1], position[:, 0]), 0)
    return arrays | {"csi": csi, "spectrum": (np.abs(np.fft.fft2(csi)) ** 2).astype(np.float32), "best_beam": beams}


def build(store: str) -> str:
    """Publish it."""
    layout = Layout(len(SPLITS), USERS, EDGE, EDGE, 3, 2, 200, 20, 2, 5, True, True, -200.0)
    draft = open_draft(store, "street", layout)
    for unit in draft.missing():
        scenes, outcomes = [], []
        for scene in layout.scenes_of(unit):
            scenes.append(arrays_of(scene))
            place = {"city": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0}
            outcomes.append(
                {
                    "scene_id": f"street-{scene}",
                    **place,
                    "split": SPLITS[scene],
                    "n_users": USERS,
                    "status": "done",
                    "bs_shift": 0.0,
                }
            )
        toy.write_buildings(draft.buildings_path(unit), outcomes)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    array = {"columns": EDGE, "rows": EDGE, "spacing_wavelengths": 0.5}
    finish_draft(draft, toy.ATTRIBUTES | {"array": array, "recipe": RECIPE}, {"map": {"name": "toy"}})
    seal(draft)
    result = validate(draft.folder)
    assert result.ok, result.findings
    publish(store, draft.folder, keep=2)
    return store


@cache
def settings_of(**rays: object) -> object:
    """Settings of a training of seconds."""
    from wavecity.model.settings.training import TrainingSettings

    model = {"width": 16, "layers": 1, "heads": 2, "scene_channels": 4}
    return TrainingSettings.model_validate(
        {
            "backbone": "rays",
            "model": {"spectrum_size": 8},
            "rays": {"model": model, "draws": 2, **rays},
            "optimiser": {"warmup_steps": 2},
            "epochs": 2,
            "batch_size": 4,
            "threads": 1,
        }
    )


@pytest.fixture(scope="module")
def street_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(str(tmp_path_factory.mktemp("street") / "store"))


@pytest.fixture(scope="module")
def street_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def seen(store: str, scene: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Channels and positions of a scene's users with a path."""
    data = open_store(store).isel(scene=scene)
    served = ~data.outage.values
    return torch.from_numpy(data.csi.values[served]), data.user_position.values[served][:, :2]
