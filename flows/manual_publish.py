"""A version published by hand: the newest validated draft, or the newest version again."""

from collections.abc import Collection

from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.checks.validate import validate_bytes
from wavecity.dataset.files import StorePath, children, location
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.publish import Version, latest, point_latest, publish, versions
from wavecity.dataset.reader import open_store, refuse_run_folder
from wavecity.dataset.records import attributes_of
from wavecity.dataset.settings import StoreSettings
from wavecity.flows.console import console
from wavecity.flows.gates import GateFailed, limits_of, measure
from wavecity.geo.errors import InputError


def publish_newest(store: str, passed: Collection[str] = ()) -> Version:
    """Publish the newest validated draft, or point at the newest version again; every byte is checked before.

    Parameters
    ----------
    store : str
    passed : collection of str
        Gates of the draft's recipe that do not stop publication this time.

    Raises
    ------
    CheckFailed
        A file has changed since it was written; nothing is published.
    GateFailed
        The draft exceeds a gate of its recipe; nothing is published.
    InputError
        Neither a validated draft nor a version is there, or a build is under way.
    """
    place = location(store)
    refuse_run_folder(place)
    found = [draft for draft in children(place / ".staging") if (draft / "validation.json").exists()]
    version = latest(place) or next(reversed(versions(place)), None)
    if version is None and not found:
        msg = f"{store}: nothing to publish; build a store there first: wavecity build RECIPE --out {store}"
        raise InputError(msg)
    with builder_lock(place):
        if found:
            draft = max(found, key=lambda folder: (folder / "validation.json").stat().st_mtime)
            _check_bytes(draft)
            _check_gates(draft, latest(place), passed)
            # Imported channels have no recipe.
            recipe = attributes_of(open_store(draft, carrier="all", port="all").attrs).get("recipe", {})
            settings = recipe.get("store") or StoreSettings().model_dump()
            return publish(place, draft, settings["keep"], settings["grace"])
        assert version is not None
        _check_bytes(version.folder)
        point_latest(version)
        return version


def _check_bytes(folder: StorePath) -> None:
    """Raise CheckFailed if a file of a version or draft has changed."""
    validation = validate_bytes(folder)
    if not validation.ok:
        raise CheckFailed(validation)


def _check_gates(draft: StorePath, last: Version | None, passed: Collection[str]) -> None:
    """Raise GateFailed if a draft exceeds a gate of its recipe, as a build would; say which ones are overridden."""
    measured = measure(draft, last.folder if last else None, limits_of(draft), passed)
    for gate in measured:
        if gate.verdict == "exceeded, overridden":
            console.print(f"gate {gate.name} is overridden: {gate.what} {gate.value:.3g}", soft_wrap=True)
    if any(gate.exceeded for gate in measured):
        raise GateFailed(measured, draft)
