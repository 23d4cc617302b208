"""What checks find: findings, the result of a validation, and the exception of one that failed."""

from collections import Counter
from dataclasses import dataclass, field

from wavecity.geo.errors import CommandFailed


@dataclass(frozen=True)
class Finding:
    """A check that failed: where, and what was found compared with what is right."""

    check: str
    where: str
    message: str


@dataclass(frozen=True)
class Validation:
    """Result of `validate`: how often each check ran, and the findings.

    `left_out` says which checks did not run here, and why.
    """

    checks: dict[str, int]
    findings: list[Finding]
    left_out: list[str]

    @property
    def ok(self) -> bool:
        """No finding."""
        return not self.findings

    @property
    def found(self) -> str:
        """How many findings there are, in words."""
        return f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"


class CheckFailed(CommandFailed):
    """Validation found something (exit code 1)."""

    def __init__(self, validation: Validation) -> None:
        first = validation.findings[0]
        super().__init__(f"validation failed: {first.check} at {first.where}: {first.message} ({validation.found})")
        self.validation = validation


@dataclass
class Report:
    """How often checks ran so far, and what they found; is sent between processes."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def ran(self, check: str) -> None:
        """Count a check that ran."""
        self.counts[check] += 1

    def check(self, check: str, where: str, message: str) -> None:
        """Count a check that ran, and add its finding unless the message is empty."""
        self.ran(check)
        if message:
            self.add(check, where, message)

    def add(self, check: str, where: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(check, where, message))
