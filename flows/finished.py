"""What a finished run was made from: the same command finds it done again, without starting Prefect or torch."""

import hashlib
from importlib import metadata
from pathlib import Path

from wavecity.dataset.files import files_below, read_json, sha256_of, write_json
from wavecity.dataset.fingerprints import fingerprint_of
from wavecity.dataset.publish import Version
from wavecity.dataset.reader import open_store
from wavecity.flows.drafts import up_to_date
from wavecity.flows.maps import map_folder
from wavecity.flows.recipe import Recipe
from wavecity.model.settings.tasks import TASKS

RECORD = "finished.json"
# What training and the report leave in a run folder, with the records of what they were made from.
OUTPUTS = ("recipe.json", "pretrain.json", "checkpoints/last.ckpt", "report.html")
PACKAGES = ("wavecity", "torch", "lightning", "numpy", "pandas", "scikit-learn", "matplotlib")


def record(recipe: Recipe, version: Version, run: Path) -> None:
    """Write `finished.json` to the folder of a finished run."""
    write_json(run / RECORD, _state(recipe, version, run))


def find(recipe: Recipe, run: Path, maps: Path | None) -> Version | None:
    """Dataset version of a finished run, if the same command would change nothing.

    Recipe, maps, code, packages and dataset are those of the run, and every file that it left is as it was.

    Parameters
    ----------
    recipe : Recipe
    run : Path
        Run folder; the store is `run/store`.
    maps : Path or None
        Folder of maps, as for `build_dataset`.
    """
    known = read_json(run / RECORD)
    if known is None:
        return None
    version = up_to_date(recipe, run / "store", maps or map_folder(run / "store"))
    if version is None or _state(recipe, version, run) != known:
        return None
    open_store(version.data, carrier="all", port="all")  # refuses a store that lacks something
    return version


def _state(recipe: Recipe, version: Version, run: Path) -> dict[str, object]:
    """Everything that the files of a run depend on, and the files."""
    made_of = {
        "recipe": recipe.model_dump(mode="json"),
        "dataset": (read_json(version.folder / "manifest.json") or {}).get("sha256"),
        "code": _code(),
        "versions": _versions(),
    }
    # Results with other settings, such as `localization-1a2b3c4d.json`, are not in the report.
    results = [name for name in files_below(run / "results") if name.partition(".")[0] in TASKS]
    names = [*OUTPUTS, *(f"results/{name}" for name in results)]
    return {
        "fingerprint": fingerprint_of(made_of),
        "files": {name: sha256_of(run / name) for name in names if (run / name).is_file()},
    }


def _versions() -> dict[str, str]:
    """Versions of the packages that results depend on; `none` for one that is not installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def _code() -> str:
    """SHA-256 of the sources that read the dataset, train, evaluate and report."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("dataset", "model"):
        for path in sorted([*(root / folder).rglob("*.py"), *(root / folder).rglob("*.j2")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()
