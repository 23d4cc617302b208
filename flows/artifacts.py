"""What a run shows in Prefect besides its log: progress, outcomes by reason, the dataset card, training, the report.

Keys begin with the recipe's name: Prefect keeps a history by key.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import read_json
from wavecity.dataset.publish import Version
from wavecity.flows.gates import Gate
from wavecity.flows.result_tables import headline
from wavecity.model.settings.tasks import TASKS


class Progress:
    """Share of the units that are done, as a bar on the run's page with what the build says of time, size and cost.

    It is updated at every whole per cent.
    """

    def __init__(self, total: int, done: int, recipe: str) -> None:
        self._total, self._done, self._shown = total, done, self._percent(done, total)
        self._id: UUID = create_progress_artifact(  # type: ignore[assignment]  # declared as async too
            progress=float(self._shown), key=f"{recipe}-units-done", description=f"{total} units, {done} done before"
        )

    def advance(self, forecast: str = "") -> None:
        """Count one more finished unit; `forecast` is what the build says of itself."""
        self._done += 1
        if (percent := self._percent(self._done, self._total)) != self._shown:
            self._shown = percent
            update_progress_artifact(self._id, progress=float(percent), description=forecast or None)

    @staticmethod
    def _percent(done: int, total: int) -> int:
        """Whole per cent of the units that are done."""
        return 100 * done // max(total, 1)


def show_version(version: Version, recipe: str) -> None:
    """Outcomes by reason, where the scenes come from, and the card."""
    receipts = load_draft(version.folder).receipts()
    scenes = [scene for receipt in receipts for scene in receipt["scenes"]]
    outcomes = Counter(
        (scene["status"], scene.get("stage", ""), scene.get("reason", "").split(":")[0]) for scene in scenes
    )
    tiles = (read_json(version.folder / "lineage.json") or {}).get("tiles", [])
    rejected = Counter(
        tile["reason"] for tile in tiles if tile["status"] == "rejected" and tile["reason"] != "not needed"
    )
    table = [{"outcome": s, "stage": stage, "reason": why, "scenes": n} for (s, stage, why), n in outcomes.items()]
    table += [{"outcome": "rejected", "stage": "plan", "reason": why, "scenes": n} for why, n in rejected.most_common()]
    create_table_artifact(
        table=table, key=f"{recipe}-outcomes", description=f"Scenes of {version.folder.name} by outcome"
    )
    origins = Counter(scene.get("origin", "") for scene in scenes)
    create_table_artifact(
        table=[{"origin": origin, "scenes": count} for origin, count in origins.most_common()],
        key=f"{recipe}-origins",
        description=f"Which scenes of {version.folder.name} were kept, which traced, and why",
    )
    card = version.folder / "card.md"
    if card.exists():
        text = card.read_bytes().decode()
        # The header is for Hugging Face.
        create_markdown_artifact(
            text.split("---\n", 2)[-1], key=f"{recipe}-dataset-card", description=str(version.data)
        )


def show_gates(gates: Sequence[Gate], recipe: str) -> None:
    """What was measured, and the limits."""
    create_table_artifact(
        table=[
            {
                "gate": gate.name,
                "measured": gate.what,
                "value": gate.value,
                "limit": gate.limit,
                "verdict": gate.verdict,
            }
            for gate in gates
        ],
        key=f"{recipe}-gates",
        description="Quality gates of the recipe, before publication",
    )


def show_training(run: Path, recipe: str) -> None:
    """Losses by epoch, from the logs of a run."""
    import pandas as pd

    logs = [pd.read_csv(path) for path in sorted(run.glob("logs/*/metrics.csv"))]
    if not logs:
        return
    # A row holds what was logged at one step; the table has the last value of each per epoch.
    epochs = pd.concat(logs).groupby("epoch").last().reset_index()
    table: list[dict[str, object]] = [
        {str(name): value for name, value in row.items() if value == value} for row in epochs.to_dict("records")
    ]
    create_table_artifact(table=table, key=f"{recipe}-training", description=str(run))


def show_report(page: Path, recipe: str) -> None:
    """Where the report lies, and the main result of each task: a browser opens no file of another machine."""
    run = page.parent
    results = [f"| {task} | {text} |" for task in TASKS if (text := headline(run, task))]
    lines = [f"Report: `{page.resolve()}` on {socket.gethostname()}"]
    if results:
        lines += ["", "| task | best value (in brackets that of the best other method) |", "|---|---|", *results]
    create_markdown_artifact("\n".join(lines), key=f"{recipe}-report", description=str(page))
