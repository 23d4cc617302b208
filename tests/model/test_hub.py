"""Models as folders and on the hub: the same outputs back, from a folder and from an endpoint that speaks the hub's language."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wavecity
from wavecity.dataset import InputError
from wavecity.model.training.checkpoint import weights_of

hub = pytest.importorskip("wavecity.model.training.hub", exc_type=InputError)


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as an upload and a download of small files take."""

    files: dict[str, bytes]
    asked: list[str]
    COMMIT = "c" * 40

    def log_message(self, *_: Any) -> None:
        """Nothing on the console."""

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": self.COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, content: Any) -> None:
        self.answer(json.dumps(content).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"POST {self.path} {self.headers.get('Authorization', '')}")
        here = f"http://{self.headers['Host']}"
        if self.path.endswith("/repos/create"):
            self.json({"url": f"{here}/someone/small", "id": "someone/small"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self.json(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.json({"commitUrl": f"{here}/someone/small/commit/{self.COMMIT}", "commitOid": self.COMMIT})
        else:
            self.json({})

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if "/resolve/" not in self.path:
            self.json({"id": "someone/small", "sha": self.COMMIT, "siblings": []})
            return
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.files.get(rest.split("/", 1)[1]) if repository == "someone/small" else None
        if content is None:
            self.answer(b"", 404, X_Error_Code="RepoNotFound" if repository != "someone/small" else "EntryNotFound")
        else:
            self.answer(content, ETag=f'"{hash(content):x}"')

    do_HEAD = do_GET


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[FakeHub]]:
    from huggingface_hub import constants

    handler = type("Handler", (FakeHub,), {"files": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def channels(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of three users, of the model's shapes."""
    geometry, random = model.model.geometry, np.random.default_rng(0)
    parts = random.standard_normal((3, geometry.columns, geometry.rows, 2)) * 1e-6
    height = 30 * random.random((3, geometry.height_cells, geometry.height_cells)).astype(np.float32)
    return parts.view(np.complex128)[..., 0].astype(np.complex64), height


def test_a_saved_model_is_the_same_model(trained: Path, tmp_path: Path) -> None:
    model = wavecity.load(trained)
    folder = model.save_pretrained(tmp_path / "small")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = wavecity.load(folder)
    assert again.settings == model.settings.model_copy(update={"init_from": None})
    assert again.statistics == model.statistics
    csi, height = channels(model)
    np.testing.assert_array_equal(again.embed(csi, height), model.embed(csi, height))
    np.testing.assert_array_equal(
        hub.HubModel.from_pretrained(folder).pretrained.embed(csi, height), model.embed(csi, height)
    )


def test_the_weights_are_plain_safetensors(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    wavecity.load(trained).save_pretrained(tmp_path / "small")
    found, expected = load_file(tmp_path / "small" / "model.safetensors"), weights_of(trained).weights
    assert found.keys() == expected.keys()
    assert all(bool((found[name] == expected[name]).all()) for name in found)


def test_the_card_says_what_it_takes_and_whom_to_name(trained: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    model = wavecity.load(trained)
    card = ModelCard.load(model.save_pretrained(tmp_path / "small") / "README.md")
    assert card.data.library_name == "wavecity"
    assert card.data.license == "odbl"
    assert {"wireless", "multimodal"} <= set(card.data.tags)
    geometry = model.model.geometry
    takes = (
        f"complex (N, {geometry.columns}, {geometry.rows})",
        f"({geometry.height_cells}, {geometry.height_cells}) in m",
    )
    for words in (*takes, "© OpenStreetMap contributors", model.card["fingerprint"][:16]):
        assert words in card.text


def test_nothing_of_this_machine_is_shared(trained: Path, tmp_path: Path) -> None:
    model = wavecity.load(trained)
    model.card["init_from"] = {"path": "/home/someone/runs/first", "fingerprint": "abc"}
    model.card["settings"]["init_from"] = "/home/someone/runs/first"
    folder = model.save_pretrained(tmp_path / "small")
    assert "someone" not in (folder / "config.json").read_text()
    assert wavecity.load(folder).card["init_from"] == {"fingerprint": "abc"}
    # The loaded model itself is left as it was.
    assert model.card["init_from"]["path"]


def untrained(backbone: str) -> tuple[Any, str]:
    """A model of another kind with random weights, and what its card says that it takes."""
    from wavecity.model.data.geometry import Geometry
    from wavecity.model.path_model.network import PathModel
    from wavecity.model.rays.radio import Radio
    from wavecity.model.settings.training import TrainingSettings
    from wavecity.model.temporal.network import TemporalModel
    from wavecity.model.training.pretrained import PretrainedRays, PretrainedTemporal

    small = {"width": 8, "layers": 1, "heads": 2}
    parts = {
        "temporal": {"temporal": {"model": small, "delays": 4}},
        "rays": {"rays": {"model": {"width": 16, "heads": 2}}},
    }
    settings = TrainingSettings.model_validate({"backbone": backbone, **parts[backbone]})
    card = {"fingerprint": "f" * 64, "settings": settings.model_dump(mode="json"), "seed": 0, "dataset_version": "v"}
    if backbone == "temporal":
        moving = {"interval_s": 1e-3, "subcarriers": 16, "subcarrier_spacing_hz": 480e3}
        card |= {"grid": [6, 8, 4], "trajectory": moving}
        network = TemporalModel(settings.temporal.model, (6, 8, 4)).eval()
        return PretrainedTemporal(network, settings, card), "complex (N, snapshots, 16, 8)"
    geometry, radio = Geometry(8, 8, 200, 20), Radio(28.5e9, 0.5, 15.0, 1.5, 5 - 0.2j)
    card |= {"geometry": vars(geometry), "radio": radio.to_dict(), "tile_size": 200.0}
    network = PathModel(settings.rays.model, geometry, radio).eval()
    return PretrainedRays(network, settings, card), "complex (N, 8, 8)"


@pytest.mark.parametrize("backbone", ["temporal", "rays"])
def test_the_other_models_are_saved_as_well(backbone: str, tmp_path: Path) -> None:
    model, takes = untrained(backbone)
    folder = model.save_pretrained(tmp_path / "model")
    again = wavecity.load(folder)
    assert type(again) is type(model)
    expected = model.model.state_dict()
    assert all(bool((value == expected[name]).all()) for name, value in again.model.state_dict().items())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert takes in card
    assert f"- {backbone}" in card


def test_a_damaged_folder_gets_one_line(trained: Path, tmp_path: Path) -> None:
    folder = wavecity.load(trained).save_pretrained(tmp_path / "small")
    weights, config = (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()
    for name, content in (
        ("model.safetensors", weights[:100]),
        ("config.json", config[:-20].encode()),
        ("config.json", b'{"hidden_size": 3}'),
    ):
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(config)
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match="not a model that wavecity saved") as error:
            wavecity.load(folder)
        assert "\n" not in str(error.value)


@pytest.mark.system
def test_up_to_the_hub_and_back(trained: Path, endpoint: type[FakeHub]) -> None:
    model = wavecity.load(trained)
    address = model.push_to_hub("someone/small", token="hf_secret", private=True)
    assert address.endswith(FakeHub.COMMIT)
    assert set(endpoint.files) == {"config.json", "model.safetensors", "README.md"}
    assert any(line.startswith("POST /api/repos/create Bearer hf_secret") for line in endpoint.asked)
    csi, height = channels(model)
    for name in ("someone/small", f"someone/small@{FakeHub.COMMIT}"):
        np.testing.assert_array_equal(wavecity.load(name).embed(csi, height), model.embed(csi, height))


@pytest.mark.system
def test_what_the_hub_does_not_have_gets_one_line(endpoint: type[FakeHub]) -> None:
    with pytest.raises(
        InputError, match="neither a run or a saved model here, nor a model that the hub gives"
    ) as error:
        wavecity.load("someone/else")
    assert "\n" not in str(error.value)


def test_the_command_writes_a_folder(trained: Path, tmp_path: Path) -> None:
    from command import wavecity as run

    done = run("export-model", trained, "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "small")
    assert weights_of(tmp_path / "small").card["fingerprint"] == weights_of(trained).card["fingerprint"]
