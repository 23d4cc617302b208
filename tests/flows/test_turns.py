"""What a run does that finds another one building in its store."""

import inspect
from pathlib import Path

import pytest
from prefect.exceptions import CancelledRun

from wavecity.dataset.lock import StoreBusy, builder_lock, refuse_busy
from wavecity.flows import turns
from wavecity.flows.turns import NotItsTurn, WhenBusy, await_turn, cancelled_if_busy, turn


@pytest.mark.parametrize(("when_busy", "error"), [("fail", StoreBusy), ("cancel", NotItsTurn)])
def test_a_busy_store_is_refused(tmp_path: Path, when_busy: WhenBusy, error: type[Exception]) -> None:
    with builder_lock(tmp_path):
        with pytest.raises(error, match=f"^{tmp_path}: process .* is building in this store"):
            await_turn(tmp_path, when_busy, print)
        with pytest.raises(error), turn(tmp_path, when_busy, print):
            pytest.fail("two builds in one store")
    await_turn(tmp_path, when_busy, print)
    with turn(tmp_path, when_busy, print) as lock:
        lock.check()
        with pytest.raises(StoreBusy):
            refuse_busy(tmp_path)
    refuse_busy(tmp_path)


def test_a_run_waits_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = builder_lock(tmp_path)
    other.__enter__()
    said: list[str] = []
    attempts = iter(range(3))

    def sleep(seconds: float) -> None:
        assert seconds == turns.LOOK
        if next(attempts) == 2:
            other.__exit__(None, None, None)

    monkeypatch.setattr(turns.time, "sleep", sleep)
    with turn(tmp_path, "wait", said.append) as lock:
        lock.check()
    assert len(said) == 1
    assert said[0].startswith(f"waiting: {tmp_path}: process ")


def test_an_error_of_the_block_is_not_taken_for_a_busy_store(tmp_path: Path) -> None:
    with pytest.raises(StoreBusy, match="of the block"), turn(tmp_path, "wait", print):
        raise StoreBusy("of the block")


@pytest.mark.parametrize("error", [NotItsTurn("busy"), CancelledRun("busy")])
def test_a_flow_that_is_not_its_turn_is_cancelled(error: Exception) -> None:
    @cancelled_if_busy
    def flow(number: int = 1) -> int:
        raise error

    state = flow(number=2)
    assert state.is_cancelled()  # type: ignore[attr-defined]
    assert state.message == "busy"  # type: ignore[attr-defined]
    # Prefect reads the parameters of the function.
    assert list(inspect.signature(flow).parameters) == ["number"]


def test_other_errors_of_a_flow_pass() -> None:
    @cancelled_if_busy
    def flow() -> None:
        raise StoreBusy("fail")

    with pytest.raises(StoreBusy):
        flow()
