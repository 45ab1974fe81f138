"""A dataset root: one URL with `tables/`, `media/` and `shards/` under it."""

from __future__ import annotations

import json
import uuid
from typing import Any, TypeVar

from sayso.errors import RootError
from sayso.patience import PATIENCE, Patience, table_options
from sayso.rows import Row
from sayso.storage import Storage
from sayso.tables import Table

R = TypeVar("R", bound=Row)

MARK = "sayso.json"
_FORMAT = 1


def mark_of_root() -> bytes:
    """What the object says that makes a folder a root."""
    return json.dumps({"format": _FORMAT}).encode()


class Root:
    """A dataset under one URL. Cheap to make and to pickle."""

    def __init__(self, url: str, options: dict[str, Any] | None = None, patience: Patience = PATIENCE) -> None:
        self.storage = Storage(url, options, patience)

    @property
    def url(self) -> str:
        """The root's URL; a plain path for a local folder."""
        return self.storage.base if self.storage.is_local else self.storage.url

    def table(self, model: type[R]) -> Table[R]:
        """The table of a row model."""
        return Table(model, f"{self.url}/tables/{model.table}", self._table_options(), self.storage.patience)

    def _table_options(self) -> dict[str, str]:
        if self.storage.is_local:
            return {}
        return table_options(self.storage.options, self.storage.patience)

    def create(self) -> Root:
        """Make the root if it is not there, and prove that it can be written. RootError where it cannot."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.storage.put_bytes(b"", probe)
            self.storage.remove(probe)
            if not self.storage.exists(MARK):
                self.storage.put_bytes(mark_of_root(), MARK)
        except OSError as error:
            raise RootError(
                f"{self.url}: cannot be written ({error.strerror or error}); choose another --root"
            ) from None
        return self.open()

    def open(self) -> Root:
        """This root, if it is one; RootError where there is none or its format is not ours."""
        try:
            mark = json.loads(self.storage.read(MARK))
        except FileNotFoundError:
            raise RootError(f"{self.url}: not a sayso root (no {MARK}); `sayso run --root` makes one") from None
        except OSError as error:
            raise RootError(f"{self.url}: cannot be read ({error.strerror or error})") from None
        except json.JSONDecodeError:
            raise RootError(f"{self.url}/{MARK}: not JSON; restore it or choose another --root") from None
        if mark.get("format") != _FORMAT:
            raise RootError(f"{self.url}: format {mark.get('format')}, this sayso reads {_FORMAT}")
        return self
