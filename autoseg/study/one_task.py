"""One task of a study as a command, for a scheduler: ``python -m autoseg.study.one_task FOLDER ID DEVICE PROCESSES``.

It keeps the same record as the executor of this machine and ends with the code of the task. SIGTERM, which a scheduler
sends before a time limit, is handed on: a training saves itself and goes on when the job is submitted again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autoseg.study.executor import LocalExecutor
from autoseg.study.state import read_task_record
from autoseg.study.study_json import read_study


def main(arguments: list[str]) -> int:
    """Run the task; its exit code, 1 where it left none."""
    import signal

    folder, name, device, processes = arguments
    study = read_study(Path(folder))
    study.tasks = [task for task in study.tasks if task.id == name]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        LocalExecutor([device], cores=int(processes)).run_once(study, study.tasks[0])
    except KeyboardInterrupt:
        return 143
    record = read_task_record(study.folder, study.tasks[0])
    return 1 if record is None or record.code is None else min(record.code, 255) if record.code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
