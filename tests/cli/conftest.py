"""What tests that stop a running command share."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def wait_for_reports() -> Callable[[str, int], None]:
    """Wait until the running command has recorded so many epochs in the registry at a path."""
    return _wait_for_reports


def _wait_for_reports(path: str, number: int) -> None:
    for _ in range(1200):
        if os.path.exists(path):
            connection = sqlite3.connect(path, timeout=30)
            try:
                if connection.execute("SELECT count(*) FROM reports").fetchone()[0] >= number:
                    return
            except sqlite3.OperationalError:
                pass  # the tables are not made yet
            finally:
                connection.close()
        time.sleep(0.05)
    raise AssertionError("the command recorded nothing")
