"""Whether a judged child can compute on a device: ``python -m emubench.runs.sandbox.probe FOLDER BYTES SECONDS …``.

It is confined as :mod:`emubench.runs.sandbox.child` is, tries the device, and says that it is ready, or in a line why
it is not.
"""

import sys
import time
from pathlib import Path

from emubench.core.hardware import check_device
from emubench.runs import stages
from emubench.runs.sandbox import child, pipe


def main() -> None:
    """Confine this process, then try."""
    bounds, device = map(int, sys.argv[2:5]), sys.argv[5]
    _, sink = child.confine(Path(sys.argv[1]).absolute(), *bounds, device=device)
    try:
        check_device(device, stages.DTYPE)
        pipe.send(sink, pipe.READY, {}, None, time.monotonic() + child.HOUR)
    except Exception as error:  # whatever it is, the judge hears of it
        child.tell(sink, error)


if __name__ == "__main__":
    main()
