"""Events that others act on: a new version, which starts training, and gates that are exceeded."""

from prefect.events import emit_event
from pydantic import Field

from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.publish import Version
from wavecity.flows.gates import GateFailed
from wavecity.flows.recipe import Recipe
from wavecity.geo.settings import Settings


class Published(Settings):
    """A published version, as the event hands it to training."""

    store: str = Field(description="Store: folder or URL, as the builder names it.")
    version: str = Field(description="Its version, e.g. v3.")
    data: str = Field(description="Zarr group of the version.")
    fingerprint: str = Field(description="Fingerprint of recipe, maps, code and packages.")
    manifest: str = Field(description="SHA-256 of the version's manifest: of all its bytes.")


def announce_version(recipe: Recipe, version: Version) -> Published:
    """Emit the event that starts training where a deployment is triggered by it (see `prefect.yaml`)."""
    published = Published(
        store=str(version.store),
        version=version.folder.name,
        data=str(version.data),
        fingerprint=version.fingerprint,
        manifest=read_json(version.folder / "manifest.json")["sha256"],
    )
    emit_event(
        "wavecity.dataset.published",
        resource={"prefect.resource.id": f"wavecity.store.{recipe.name}", "prefect.resource.name": str(version.store)},
        payload={"recipe": recipe.model_dump(mode="json"), "dataset": published.model_dump(mode="json")},
    )
    return published


def announce_exceeded_gates(recipe: Recipe, store: StorePath, error: GateFailed) -> None:
    """Emit the event of a draft that its gates keep from publication; alerts notify of it."""
    emit_event(
        "wavecity.gate.failed",
        resource={"prefect.resource.id": f"wavecity.store.{recipe.name}", "prefect.resource.name": str(store)},
        payload={"gates": [gate.name for gate in error.gates], "message": str(error)},
    )
