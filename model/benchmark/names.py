"""How an encoder is named on the command line; light, for it decides what is imported."""

import re
from pathlib import Path

# `package.module:name`
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_encoder_name(text: str) -> bool:
    """Whether this is `package.module:name` and no path.

    Examples
    --------
    >>> is_encoder_name("my_package:MyEncoder"), is_encoder_name("runs/quickstart")
    (True, False)
    """
    return NAME.fullmatch(text) is not None and not Path(text).exists()
