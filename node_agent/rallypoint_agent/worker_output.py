"""What the workers of a round write: shown on the console, and copied filtered into files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from rallypoint_agent.api import WorkerGroup
from rallypoint_agent.logs import LogsDest, line_prefix
from rallypoint_agent.tail_log import MAX_BEHIND_BYTES, FilteredFile, StreamOutput, TailLogs, console


class WorkerOutput:
    """``prefix_template``: of each line, as torch has it."""

    def __init__(self, prefix_template: str | None) -> None:
        self.log_dir = ""
        """Where the output of the last round's workers is; "" if it went where ours goes."""
        self._prefix_template = prefix_template
        self._console = (StreamOutput(console(1)), StreamOutput(console(2)))
        self._tails = TailLogs(MAX_BEHIND_BYTES)
        # Separate: who reads the console may be slow, and a copy in a file is complete.
        self._copies = TailLogs()

    def follow(self, dest: LogsDest, group: WorkerGroup) -> None:
        """From the files of a round that begins, until ``finish``."""
        self.log_dir = dest.log_dir
        spec, (out, err) = group.spec, self._console
        self._follow_stream(group, dest.tee_stdouts, out, dest.filtered_stdout, spec.duplicate_stdout_filters)
        self._follow_stream(group, dest.tee_stderrs, err, dest.filtered_stderr, spec.duplicate_stderr_filters)

    def finish(self) -> None:
        """No worker of the round writes any more."""
        self._tails.finish()
        self._copies.finish()

    def close(self) -> None:
        """Finish, and wait until all is shown: as long as whoever reads the console takes."""
        with contextlib.ExitStack() as closing:
            closing.callback(self._copies.close)
            closing.callback(self._tails.close)

    def _follow_stream(
        self,
        group: WorkerGroup,
        files: Mapping[int, str],
        shown_on: StreamOutput,
        copy: str,
        filters: Sequence[str] | None,
    ) -> None:
        filtered = FilteredFile(copy, filters) if copy and filters else None
        for local_rank, path in files.items():
            rank = group.workers[local_rank].global_rank
            prefix = line_prefix(self._prefix_template, group.spec.role, local_rank, rank)
            self._tails.follow(path, prefix, shown_on)
            if filtered:
                self._copies.follow(path, prefix, filtered)
