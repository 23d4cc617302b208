"""Alerts of a Prefect server as code: automations that notify when a run fails, is lost or publishes.

    python -m wavecity.flows.alerts slack-webhook/operations

makes them, or brings those that are there to what this module says. The argument is a notification block, `type/name` as
`prefect block ls` shows it: Slack, e-mail, PagerDuty, a webhook of your own, or any other that Prefect has.
"""

from datetime import timedelta
from uuid import UUID

import click
from prefect.automations import (
    AutomationCore,
    EventTrigger,
    Posture,
    ResourceSpecification,
    SendNotification,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound

from wavecity.geo.errors import InputError

# Without a sign of life of its process for so long, a run counts as lost, and is reported as crashed.
SILENCE = timedelta(minutes=10)

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling"))
# Runs of our deployments, by their tags.
OURS = ResourceSpecification(
    {"prefect.resource.role": "tag", "prefect.resource.id": ["prefect.tag.dataset", "prefect.tag.training"]}
)
RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
STORES = ResourceSpecification({"prefect.resource.id": "wavecity.store.*"})

OF_RUN = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.message }}\n{{ (flow_run | ui_url) or flow_run.id }}"
OF_STORE = "{{ event.resource.name }}: "


def alerts(block: UUID, silence: timedelta = SILENCE) -> list[AutomationCore]:
    """The automations, all of which notify through one block.

    Parameters
    ----------
    block : UUID
        Of the notification block.
    silence : timedelta
        How long a run may give no sign of life, at least 10 s; more than `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`, which is 3
        minutes.

    Examples
    --------
    >>> [alert.name for alert in alerts(block)][:2]
    ['wavecity: failed', 'wavecity: crashed']
    """
    found = [
        _alert(block, state.lower(), _of_runs({f"prefect.flow-run.{state}"}), f"A run is {state}", OF_RUN)
        for state in ("Failed", "Crashed", "Late")
    ]
    silent = EventTrigger(
        posture=Posture.Proactive,
        match=RUNS,
        match_related=OURS,
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=silence,
    )
    minutes = silence.total_seconds() / 60
    lost = _alert(block, "silent", silent, f"A run gave no sign of life for {minutes:g} min", OF_RUN)
    # Nobody else can: else it would be under way for ever.
    message = f"No sign of life for {minutes:g} min: its machine, container or service was lost or stopped."
    lost.actions.append(ChangeFlowRunState(state=StateType.CRASHED, message=message))
    found.append(lost)
    stopped = EventTrigger(posture=Posture.Reactive, match=STORES, expect={"wavecity.gate.failed"}, threshold=1)
    text = OF_STORE + "{{ event.payload.message }}"
    found.append(_alert(block, "gate failed", stopped, "A quality gate stopped a version", text))
    published = EventTrigger(posture=Posture.Reactive, match=STORES, expect={"wavecity.dataset.published"}, threshold=1)
    text = OF_STORE + "{{ event.payload.dataset.version }}, {{ event.payload.dataset.data }}"
    found.append(_alert(block, "published", published, "A version was published", text))
    return found


def apply(block: str, silence: timedelta = SILENCE) -> list[str]:
    """Make or renew the automations on the server of `PREFECT_API_URL`; their names.

    Parameters
    ----------
    block : str
        Notification block, `type/name`.
    silence : timedelta
        As for `alerts`.

    Raises
    ------
    InputError
        There is no such block.
    """
    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind)
        except ObjectNotFound as error:
            msg = f"{block}: no such notification block; make one in Prefect's UI, and give TYPE/NAME as `prefect block ls` does"
            raise InputError(msg) from error
        wanted = alerts(document.id, silence)
        for alert in wanted:
            for known in client.read_automations_by_name(alert.name):
                client.delete_automation(known.id)
            client.create_automation(alert)
    return [alert.name for alert in wanted]


def _of_runs(events: set[str]) -> EventTrigger:
    """One of these events of one of our runs."""
    return EventTrigger(
        posture=Posture.Reactive,
        match=RUNS,
        match_related=OURS,
        expect=events,
        for_each={"prefect.resource.id"},
        threshold=1,
    )


def _alert(block: UUID, name: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
    """An automation that notifies."""
    action = SendNotification(block_document_id=block, subject=f"Wavecity: {subject}", body=body)
    return AutomationCore(name=f"wavecity: {name}", description=subject, trigger=trigger, actions=[action])


@click.command()
@click.argument("block")
@click.option(
    "--silence",
    type=click.FloatRange(1 / 6),
    default=SILENCE.total_seconds() / 60,
    show_default=True,
    help="Minutes without a sign of life after which a run counts as lost; runs give one every 3 minutes.",
)
def main(block: str, silence: float) -> None:
    """Have a Prefect server notify BLOCK (TYPE/NAME) of runs that fail, crash, are late or silent, of gates, of versions."""
    try:
        for name in apply(block, timedelta(minutes=silence)):
            click.echo(name)
    except InputError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
