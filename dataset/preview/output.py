"""A scene of a store for people to look at: a picture, an interactive page, or a 3D model."""

from pathlib import Path

from wavecity.dataset.files import StorePath, atomic_path, make_folder
from wavecity.dataset.preview.page import write_model, write_page
from wavecity.dataset.preview.picture import draw_picture
from wavecity.dataset.preview.scene import load_view
from wavecity.geo.errors import InputError

SUFFIXES = (".png", ".html", ".glb")


def draw_scene(
    store: str | StorePath,
    scene_id: str,
    out: Path,
    carrier: float | None = None,
    port: str | None = None,
    bs: int | None = None,
) -> Path:
    """Draw one scene: buildings by the source of their height, crowns, base stations, users, and their strongest paths.

    Parameters
    ----------
    store : path
        Folder of a build, of a version, or a `.zarr` within one.
    scene_id : str
        E.g. `helsinki-0007`.
    out : Path
        Its suffix chooses: `.png` (3D view and plan), `.html` (interactive, needs no network), `.glb` (glTF).
    carrier : float, optional
        Of a store with several: the one with this frequency in Hz.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station.
    bs : int, optional
        Of a store with several base stations: the one whose links are drawn; the first by default.

    Raises
    ------
    InputError
        Another suffix, no such scene, a quarantined scene, or no buildings next to the arrays.

    Examples
    --------
    >>> draw_scene("helsinki", "helsinki-0003", Path("scene.html"))
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"--out {out}: suffix {out.suffix!r}; one of {', '.join(SUFFIXES)} chooses what is drawn"
        raise InputError(msg)
    if out.is_dir():
        msg = f"--out {out}: is a folder; name a file"
        raise InputError(msg)
    view = load_view(store, scene_id, carrier=carrier, port=port, bs=bs)
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        if suffix == ".png":
            draw_picture(view, temporary)
        elif suffix == ".html":
            write_page(view, temporary)
        else:
            write_model(view, temporary)
    return out
