"""A small store with two carriers: that of `toy`, and its free-space channels at a lower one."""

from dataclasses import replace

import numpy as np
from toy import ATTRIBUTES, FREQUENCY, make_arrays, make_layout, write_buildings

from wavecity.dataset.bands import stack_bands
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.files import StorePath
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import Version, publish
from wavecity.dataset.writer import write_unit
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

LOW = 3.5e9
CARRIERS = [LOW, FREQUENCY]
SPLITS = ("train", "train", "validation", "test")


def arrays_at(frequency: float, seed: int, users: int) -> dict[str, np.ndarray]:
    """Arrays of `toy.make_arrays` at another frequency: paths of the same length, a panel of the same wavelengths."""
    arrays = make_arrays(np.random.default_rng(seed), users)
    if frequency == FREQUENCY:
        return arrays
    delay = np.linalg.norm(arrays["user_position"].astype(np.float64), axis=-1) / SPEED_OF_LIGHT
    ratio = FREQUENCY / frequency * np.exp(-2j * np.pi * (frequency - FREQUENCY) * delay)
    csi = (arrays["csi"] * ratio[:, None, None]).astype(np.complex64)
    gain = (arrays["paths/gain"] * ratio[:, None]).astype(np.complex64)
    spectrum = (np.abs(np.fft.fft2(csi)) ** 2).astype(np.float32)
    level = arrays["path_gain"] + np.where(arrays["outage"], 0, 20 * np.log10(FREQUENCY / frequency))
    return arrays | {"csi": csi, "spectrum": spectrum, "paths/gain": gain, "path_gain": level.astype(np.float32)}


def make_draft(store: StorePath) -> Draft:
    """Four scenes at both carriers, as a draft."""
    layout = replace(make_layout(scenes=4), carriers=len(CARRIERS))
    draft = open_draft(store, "0badcafe0badcafe0bad", layout)
    for unit in draft.missing():
        scenes, outcomes = [], []
        for scene in draft.layout.scenes_of(unit):
            users = 8 + scene
            outcome = {"scene_id": f"toy-{scene:04d}", "city": "Toy", "country": "FI", "split": SPLITS[scene]}
            outcome |= {"latitude": 60.0, "longitude": 25.0, "n_users": users, "status": "done", "bs_shift": 0.0}
            outcome |= {"n_outage": 1}
            scenes.append(stack_bands([arrays_at(carrier, scene, users) for carrier in CARRIERS]))
            outcomes.append(outcome)
        write_buildings(draft.buildings_path(unit), outcomes)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    finish_draft(draft, ATTRIBUTES | {"frequency_hz": LOW, "carriers": {"frequencies_hz": CARRIERS}}, {})
    seal(draft)
    return draft


def build_carrier_store(store: StorePath) -> Version:
    """The same, published."""
    draft = make_draft(store)
    result = validate(draft.folder)
    assert result.ok, result.findings
    return publish(store, draft.folder, keep=2)
