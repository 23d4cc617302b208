"""The Python of README and docs/dataset.md runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Trainer:
    """In Lightning's place: takes one batch."""

    def fit(self, model: Any, datamodule: Any) -> None:
        assert next(iter(datamodule.train_dataloader()))["csi"].shape[1:] == (32, 32)


@pytest.mark.parametrize("page", ["README.md", "docs/dataset.md"])
def test_the_examples_run(page: str, toy_store: Path) -> None:
    names: dict[str, Any] = {"trainer": Trainer(), "model": None}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        code = block.replace("runs/quickstart/store", str(toy_store)).replace('"STORE', f'"{toy_store}')
        code = "\n".join(line for line in code.splitlines() if "s3://" not in line)
        exec(code, names)
    if page == "docs/dataset.md":
        assert names["small"].shape[-2:] == (8, 8)
        assert names["wide"].sizes["subcarrier"] == 64
        assert names["noisy"].isel(scene=0).compute().shape == names["small"].shape[1:]
        batch = next(iter(names["train"]))
        assert batch["observed"].shape == batch["csi"].shape
