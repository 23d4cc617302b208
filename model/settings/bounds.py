"""Numbers with bounds, of which the settings are made."""

from typing import Annotated

from pydantic import Field

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
# Without 1: something always stays. `Part` is without 0, too.
Ratio = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Shares = Annotated[tuple[Share, ...], Field(min_length=1)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1)]
