"""Columns as Arrow has them. The only module that knows which types the columns of a Parquet file have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.export.rows import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 100
"""Of a row group with videos: what a reader must hold in memory for one row."""
BATCH_BYTES = 64_000_000


def require_pyarrow() -> None:
    """
    Import pyarrow.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            "this format needs pyarrow, which is not installed",
            hint="in the checkout that runner was installed from: pip install '.[export]'; or use --format webdataset",
        ) from None


def fields(columns: Sequence[str]) -> list[pa.Field]:
    """Return the fields of some columns, which can all be null."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    return [pa.field(column, types[COLUMNS[column]]) for column in columns]


def writer(file: Any, schema: pa.Schema, *, uncompressed: Sequence[str] = ()) -> Any:
    """
    Return a writer of a Parquet file, a context manager with `write_table`.

    Args:
        uncompressed: Paths of columns that do not get smaller, and whose least and greatest values say nothing.
    """
    import pyarrow.parquet as pq

    others = [
        field.name for field in schema if not any(path.startswith(f"{field.name}.") for path in uncompressed)
    ]
    return pq.ParquetWriter(
        file,
        schema,
        compression={**dict.fromkeys(others, "zstd"), **dict.fromkeys(uncompressed, "none")},
        use_dictionary=others,
        write_statistics=others,
    )
