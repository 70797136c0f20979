"""The token file as it is now."""

from __future__ import annotations

import logging
from pathlib import Path

from rallypoint.limits import TOKEN_PREFIX
from rallypoint.security.files import WatchedFiles
from rallypoint_coordinator.security.tokens import FILE_BYTES_MAX, TOKEN_ITSELF, Table, TokenFileError, parse

log = logging.getLogger(__name__)


class TokenFile:
    """Read when it is made, and again whenever it has changed. Raises TokenFileError if it cannot be used at first.

    Later, the log says so, and the earlier table stays in force: half a file must not lock everybody out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = WatchedFiles([path])
        self.table = self._read()

    def refresh(self) -> bool:
        """Whether there is a new table."""
        if not self._file.changed():
            return False
        try:
            table = self._read()
        except TokenFileError as error:
            log.error("the token file has changed and cannot be used, the earlier one stays in force: %s", error)
            return False
        if table == self.table:
            return False
        self.table = table
        log.info("the token file %s was read again: %d credentials", self._path, len(table))
        return True

    def _read(self) -> Table:
        if self._path.name.startswith(TOKEN_PREFIX) and not self._path.exists():
            # Nor is it shown.
            raise TokenFileError(f"--token-file takes the path of a file, and this is {TOKEN_ITSELF}")
        try:
            (data,) = self._file.read()
            if len(data) > FILE_BYTES_MAX:
                raise TokenFileError(f"it has more than {FILE_BYTES_MAX} bytes")
            return parse(data.decode())
        except OSError as error:
            raise TokenFileError(f"{self._path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise TokenFileError(f"{self._path}: it is not UTF-8 text") from None
        except TokenFileError as error:
            raise TokenFileError(f"{self._path}: {error}") from None
