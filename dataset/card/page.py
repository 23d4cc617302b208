"""The dataset card: an HTML page and the same in Markdown: what a version holds, how it was made, and its limits.

Everything is taken from the version's own files; of the big arrays only a few example scenes are read. The same
version gives the same bytes.
"""

import re
from dataclasses import dataclass
from importlib import resources
from typing import TypedDict

import jinja2
import numpy as np
import yaml
from numpy.typing import NDArray

from wavecity.dataset.bands import at_band, dim_of
from wavecity.dataset.card.facts import Facts, gather_facts
from wavecity.dataset.card.pictures import (
    Example,
    Place,
    draw_example,
    draw_histogram,
    draw_spectrum,
    draw_tiles,
    draw_world,
    same_side,
)
from wavecity.dataset.card.source import SPLITS, Source, load_source, percent, places_of
from wavecity.dataset.distributions import HISTOGRAMS, Histogram
from wavecity.dataset.files import StorePath, array_of, open_group, write_text
from wavecity.raytrace.arrays import spectrum

LABELS = {
    "train": "train",
    "validation": "validation",
    "test": "test",
    "several": "several splits",
    "quarantined": "quarantined",
    "rejected": "rejected tile",
}


@dataclass(frozen=True)
class Picture:
    """A picture of the page, with the text for readers who cannot see it."""

    uri: str
    alt: str
    caption: str = ""


class Pictures(TypedDict):
    """All pictures of the page; `map_states` are the keys of `LABELS` that occur on the map."""

    map: Picture
    map_states: list[str]
    histograms: list[Picture]
    examples: list[Picture]
    spectra: list[Picture]


def write_card(folder: StorePath) -> None:
    """Write `card.html` and `card.md` into the folder of a finished draft or version.

    Parameters
    ----------
    folder : path
        With `data.zarr`, receipts, `distributions.json`, `lineage.json` and `ledger.json`.

    Raises
    ------
    InputError
        It holds no finished version.

    Examples
    --------
    >>> write_card(latest("helsinki").folder)
    """
    source = load_source(folder)
    facts = gather_facts(source)
    write_text(folder / "card.html", _render("page.html.j2", autoescape=True, **facts, pictures=draw_pictures(source)))
    write_text(folder / "card.md", _render("page.md.j2", autoescape=False, **facts, header=_header(facts)))


def _header(facts: Facts) -> str:
    """YAML header as Hugging Face's dataset cards have it; a sample is a user."""
    users = sum(counts.total() for counts in facts["user_shares"].values())
    bounds = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
    header = {
        "license": "odbl",
        "pretty_name": facts["title"],
        "task_categories": ["other"],
        "size_categories": [next((name for most, name in bounds if users < most), "10M<n<100M")],
        "tags": [
            "wireless",
            "channel-state-information",
            "mimo",
            "beamforming",
            "localization",
            "ray-tracing",
            "openstreetmap",
            "zarr",
            "simulation",
        ],
    }
    return str(yaml.safe_dump(header, sort_keys=False, allow_unicode=True)).strip()


def draw_pictures(source: Source) -> Pictures:
    """Map, histograms, example scenes and spectra of the page."""
    cities = _city_places(source)
    if len(cities) > 1:
        shown, caption = cities, "Cities, larger with more scenes."
        drawn = Picture(draw_world(cities), f"{len(cities)} cities on a map of the world", caption)
    else:
        shown, caption = tile_places(source), f"Tiles in {cities[0].name} at their true positions."
        uri = draw_tiles(shown, source.attributes["tile_size_m"], source.outlines)
        drawn = Picture(uri, f"{len(shown)} tiles in {cities[0].name}", caption)
    histograms = [
        Picture(draw_histogram(of), f"Histogram of the {of['long_name']}", _histogram_caption(of))
        for of in (source.distributions["histograms"][name] for name in HISTOGRAMS)
        if any(sum(split["counts"]) for split in of["splits"].values())
    ]
    examples, spectra = _examples(source)
    gains = np.concatenate([example.gain[~example.outage] for example in examples] or [np.zeros(0, np.float32)])
    # Percentiles: a single deep fade must not use up the whole colour scale.
    low, high = np.percentile(gains, (5, 100)) if len(gains) else (-150.0, -50.0)
    return {
        "map": drawn,
        "map_states": [state for state in LABELS if any(place.state == state for place in shown)],
        "histograms": histograms,
        "examples": [
            Picture(draw_example(example, (low, max(high, low + 1))), f"Scene {example.title} from above")
            for example in examples
        ],
        "spectra": [Picture(draw_spectrum(name, power), f"Spatial spectrum of {name}") for name, power in spectra],
    }


def _examples(source: Source) -> tuple[list[Example], list[tuple[str, NDArray[np.float32]]]]:
    """The first finished scene of every split, and two users of them: with line of sight and without."""
    root, attributes = open_group(source.folder / "data.zarr"), source.attributes
    splits, status = source.coordinate("split"), source.coordinate("status")
    ids, shifts, n_users = (source.coordinate(name) for name in ("scene_id", "bs_shift", "n_users"))
    x, y, _ = attributes["bs_position_m"]
    examples, spectra = [], {}
    for split in SPLITS:
        found = [index for index, of in enumerate(splits) if of == split and status[index] == "done" and n_users[index]]
        for index in found[:1]:
            count = n_users[index]
            names = ("height", "user_position", "path_gain", "los", "outage")
            arrays = {name: np.asarray(array_of(root, name)[index]) for name in names}
            if dim_of(attributes):
                arrays = at_band(arrays, 0)
            base = np.array([x + shifts[index], y])
            gain, los, outage = (arrays[name][:count] for name in ("path_gain", "los", "outage"))
            users = arrays["user_position"][:count, :2] + base
            title = f"{ids[index]} ({split})"
            examples.append(Example(title, arrays["height"], attributes["tile_size_m"], base, users, gain, los, outage))
            for kind, chosen in (("with line of sight", los & ~outage), ("without line of sight", ~los & ~outage)):
                if chosen.any() and kind not in spectra:
                    user = int(np.flatnonzero(chosen)[gain[chosen].argmax()])
                    csi = np.asarray(array_of(root, "csi")[index, user])
                    csi = csi[0] if dim_of(attributes) else csi
                    spectra[kind] = (f"{ids[index]}, user {user}, {kind}", spectrum(csi))
    return examples, list(spectra.values())


def tile_places(source: Source) -> list[Place]:
    """Scenes, and the candidate tiles that were examined and rejected."""
    names = ("scene_id", "latitude", "longitude", "split", "status")
    places = [
        Place(scene, latitude, longitude, split if status == "done" else "quarantined")
        for scene, latitude, longitude, split, status in zip(*(source.coordinate(n) for n in names), strict=True)
    ]
    rejected = [
        Place(tile["id"], tile["latitude"], tile["longitude"], "rejected")
        for tile in source.lineage.get("tiles", [])
        if tile["status"] == "rejected" and tile["reason"] != "not needed"
    ]
    return places + rejected


def _city_places(source: Source) -> list[Place]:
    """Cities, each at the middle of its scenes."""
    splits = source.coordinate("split")
    latitude, longitude = (np.array(source.coordinate(name)) for name in ("latitude", "longitude"))
    places = []
    for city, scenes in places_of(source).items():
        theirs = {splits[index] for index in scenes}
        state = theirs.pop() if len(theirs) == 1 else "several"
        middle = float(latitude[scenes].mean()), float(same_side(longitude[scenes]).mean())
        places.append(Place(city, *middle, state, len(scenes)))
    return places


def _histogram_caption(histogram: Histogram) -> str:
    """What a histogram is of, and how many values its bins leave out."""
    name, parts = histogram["long_name"], histogram["splits"].values()
    beyond = {"below": sum(part["below"] for part in parts), "above": sum(part["above"] for part in parts)}
    texts = [f"{count:,} values {side} the bins are not drawn" for side, count in beyond.items() if count]
    return f"{name[0].upper()}{name[1:]}." + "".join(f" {text}." for text in texts)


def _markdown(value: str) -> str:
    """Text escaped for a cell of a Markdown table."""
    return re.sub(r"([\\|`*_<\[\]])", r"\\\1", value).replace("\n", " ")


def _render(template: str, autoescape: bool, **content: object) -> str:
    """Fill in a template of this folder."""
    environment = jinja2.Environment(
        autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["md"] = _markdown
    environment.globals |= {"percent": percent, "labels": LABELS}
    text = resources.files("wavecity.dataset.card").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**content)
