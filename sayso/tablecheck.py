"""Whether a table is whole: its log (sayso/tablelog.py), and each data file against its name and against the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from sayso.arrow import fitted, from_arrow, missing, schema
from sayso.datafile import digest_of
from sayso.errors import CorruptObject, StorageError
from sayso.root import Root
from sayso.rows import Row, StoredObject
from sayso.tablelog import LiveFile, TableLog, read_log

# A transcript may have a megabyte.
_BATCH_ROWS = 1024


@dataclass
class TableReport:
    """What was found of a table. `broken` are live data files, by path, with what is wrong; `log` has its own."""

    model: type[Row]
    exists: bool = False
    log: TableLog = field(default_factory=TableLog)
    broken: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    @property
    def folder(self) -> str:
        """The table's key under the root."""
        return folder_of(self.model)

    @property
    def lines(self) -> list[str]:
        """All that is wrong, a line each."""
        broken = [f"{self.folder}/{path}: {why}" for path, why in self.broken.items()]
        return [*self.log.problems, *broken, *self.problems]


def folder_of(model: type[Row]) -> str:
    """The key of a model's table under its root."""
    return f"tables/{model.table}"


def check_table(root: Root, model: type[Row]) -> TableReport:
    """Read all of a table's files. Rows are not made into models: a file of the right bytes has the right rows."""
    report = TableReport(model)
    keys = root.storage.list(report.folder)
    if not keys:
        return report
    report.exists = True
    report.log = read_log(root.storage, report.folder)
    footers = {}
    for path, file in sorted(report.log.state.files.items()):
        report.rows += file.rows
        report.bytes += file.bytes
        try:
            footers[path] = _footer(root, report.folder, path, file)
        except CorruptObject as error:
            report.broken[path] = str(error)
    live = {f"{report.folder}/{path}" for path in report.log.state.files}
    gone = {f"{report.folder}/{path}" for path in report.log.state.removed}
    report.extra = [key for key in keys if key not in live | gone | report.log.keys]
    report.problems = _problems_of_reading(root, report, footers.values())
    return report


def sound_rows(root: Root, report: TableReport) -> Iterator[Row]:
    """The rows of the data files that are whole, read one file after the other."""
    for path in sorted(report.log.state.files.keys() - report.broken.keys()):
        with root.storage.open(f"{report.folder}/{path}") as opened, pq.ParquetFile(opened) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
                yield from from_arrow(report.model, fitted(batch, schema(report.model)))


def _footer(root: Root, folder: str, path: str, file: LiveFile) -> pa.Schema:
    """A data file's schema, once its bytes are known to be right."""
    key = f"{folder}/{path}"
    digest = digest_of(path)
    assert digest, "the log takes no other names"
    try:
        root.storage.check(StoredObject(key=key, sha256=digest, bytes=file.bytes))
    except CorruptObject as error:
        raise CorruptObject(str(error).removeprefix(f"{key}: ").replace("its row says", "its name says")) from None
    with root.storage.open(key) as opened, pq.ParquetFile(opened) as parquet:
        if parquet.metadata.num_rows != file.rows:
            raise CorruptObject(f"{parquet.metadata.num_rows} rows, the log says {file.rows}")
        found: pa.Schema = parquet.schema_arrow
        return found


def _problems_of_reading(root: Root, report: TableReport, footers: Iterable[pa.Schema]) -> list[str]:
    """What readers would find: the version and the files that Delta Lake sees, and their columns."""
    try:
        table = root.table(report.model).opened()
    except StorageError as error:
        return [str(error).removeprefix(f"{root.url}/")]
    if table is None:
        return [f"{report.folder}: there are files and no table"]
    there = pa.schema(table.schema().to_arrow())
    # A column that neither the model nor a file has: where a newer sayso made it, its files have it.
    unknown = set(missing(there, schema(report.model)))
    problems = set()
    for footer in footers:
        unknown &= set(missing(there, footer))
        problems.update(_unlike(footer, there))
    problems.update(f"column {name} of the log's schema is nowhere else" for name in unknown)
    seen = set(pa.table(table.get_add_actions())["path"].to_pylist())
    if not report.log.problems and seen != report.log.state.files.keys():
        problems.add("readers see other files than the log names")
    return [f"{report.folder}: {problem}" for problem in sorted(problems)]


def _unlike(file: Iterable[pa.Field], table: Iterable[pa.Field], within: str = "") -> list[str]:
    """Columns of a file, and parts of columns, that the table does not have, or has with another type."""
    found = {field.name: field for field in table}
    lines = []
    for each in file:
        path = f"{within}{each.name}"
        if each.name not in found:
            lines.append(f"column {path} of its files is not in the log's schema")
        else:
            lines += _unlike_types(each.type, found[each.name].type, path)
    return lines


def _unlike_types(file: pa.DataType, table: pa.DataType, path: str) -> list[str]:
    if pa.types.is_list(file) and pa.types.is_list(table):
        return _unlike_types(file.value_type, table.value_type, path)
    if pa.types.is_struct(file) and pa.types.is_struct(table):
        return _unlike(list(file), list(table), f"{path}.")
    return [] if file == table else [f"column {path} is {file} in its files and {table} in the log's schema"]
