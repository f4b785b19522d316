"""Tools of scientists, each given a URL of ours: does it read what lies in the local directory?

``python -m benchmarks.ecosystem_tools CASE LINK DIRECTORY`` is run by :mod:`benchmarks.ecosystem`
in a process with a home of its own. It prints one JSON object: ``equal``, or ``missing`` with the
package that is not installed. ``DIRECTORY`` is what ``LINK`` names, and is only compared with.
``python -m benchmarks.ecosystem_tools load_bytes|cat_file LINK START END`` writes a range.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 20_000
SHAPE = (60, 40, 30)
READERS = 4
RANGES_EACH = 25


def make(directory: Path) -> None:
    """Make the files that the cases read."""
    import numpy as np
    import pandas as pd
    import xarray as xr

    rng = np.random.default_rng(11)
    (directory / "sub").mkdir(parents=True)
    table = pd.DataFrame(
        {
            "number": np.arange(ROWS),
            "value": rng.random(ROWS),
            "word": rng.choice(["one", "zwei", "trois", "четыре"], ROWS),
        }
    )
    table.to_csv(directory / "sub" / "table.csv", index=False)
    table.to_csv(directory / "table.csv.gz", index=False)
    table.to_parquet(directory / "sub" / "table.parquet", row_group_size=ROWS // 5)
    np.save(directory / "array.npy", rng.random(SHAPE))
    grid = xr.Dataset(
        {"temperature": (("time", "lat", "lon"), rng.random(SHAPE))},
        coords={"time": np.arange(SHAPE[0])},
        attrs={"title": "made up"},
    )
    grid.to_netcdf(directory / "grid.nc", engine="h5netcdf")
    chunks = {"temperature": {"chunks": (10, 20, 30)}}
    grid.to_zarr(directory / "grid.zarr", zarr_format=3, encoding=chunks, consolidated=False)
    (directory / "bytes.bin").write_bytes(random.Random(5).randbytes(8 * 1024 * 1024))


def inside(link: str, path: str) -> str:
    """Return the URL of what lies in the directory that a link names."""
    location, _, query = link.partition("?")
    return f"{location}/{path}?{query}"


# --- The cases -----------------------------------------------------------------------------------


def pandas_csv(link: str, here: Path) -> bool:
    import pandas as pd

    found = pd.read_csv(inside(link, "sub/table.csv"))
    return bool(found.equals(pd.read_csv(here / "sub/table.csv")))


def pandas_csv_gz(link: str, here: Path) -> bool:
    import pandas as pd

    url, wanted = inside(link, "table.csv.gz"), pd.read_csv(here / "table.csv.gz")
    told = pd.read_csv(url, compression="gzip")
    inferred = pd.read_csv(f"{url}&as=table.csv.gz")  # pandas looks at how the whole URL ends
    return bool(told.equals(wanted)) and bool(inferred.equals(wanted))


def pandas_parquet(link: str, here: Path) -> bool:
    import pandas as pd

    found = pd.read_parquet(inside(link, "sub/table.parquet"))
    return bool(found.equals(pd.read_parquet(here / "sub/table.parquet")))


def numpy_npy(link: str, here: Path) -> bool:
    import fsspec
    import numpy as np

    import bytestag

    wanted = np.load(here / "array.npy")
    with fsspec.open(inside(link, "array.npy")) as file:
        found = np.load(file, allow_pickle=False)
    loaded = bytestag.load_npy(inside(link, "array.npy"))
    return bool(np.array_equal(found, wanted)) and bool(np.array_equal(loaded, wanted))


def xarray_zarr3(link: str, here: Path) -> bool:
    import xarray as xr
    import zarr

    url = inside(link, "grid.zarr")
    found = xr.open_zarr(url, zarr_format=3, consolidated=False).load()
    group = zarr.open_group(url, mode="r")
    wanted = xr.open_zarr(here / "grid.zarr", zarr_format=3, consolidated=False).load()
    return bool(found.identical(wanted)) and "temperature" in group


def xarray_h5netcdf(link: str, here: Path) -> bool:
    import xarray as xr

    found = xr.open_dataset(inside(link, "grid.nc"), engine="h5netcdf").load()
    return bool(found.identical(xr.open_dataset(here / "grid.nc", engine="h5netcdf").load()))


def h5netcdf_file(link: str, here: Path) -> bool:
    import fsspec
    import h5netcdf
    import numpy as np

    with (
        fsspec.open(inside(link, "grid.nc")) as file,
        h5netcdf.File(file, "r") as found,
        h5netcdf.File(here / "grid.nc", "r") as wanted,
    ):
        return bool(np.array_equal(found["temperature"][5:9], wanted["temperature"][5:9]))


def dask_csv(link: str, here: Path) -> bool:
    import dask.dataframe as dd
    import pandas as pd

    found = dd.read_csv(inside(link, "sub/table.csv"), blocksize=200_000).compute()
    wanted = pd.read_csv(here / "sub/table.csv")
    return bool(found.reset_index(drop=True).equals(wanted.astype(found.dtypes)))


def dask_parquet(link: str, here: Path) -> bool:
    import dask.dataframe as dd
    import pandas as pd

    found = dd.read_parquet(inside(link, "sub/table.parquet")).compute()
    wanted = pd.read_parquet(here / "sub/table.parquet")
    return bool(found.reset_index(drop=True).equals(wanted.astype(found.dtypes)))


def pyarrow_dataset(link: str, here: Path) -> bool:
    import fsspec
    import pyarrow.dataset as ds

    files, path = fsspec.url_to_fs(inside(link, "sub/table.parquet"))
    found = ds.dataset(path, filesystem=files, format="parquet")
    wanted = ds.dataset(here / "sub/table.parquet", format="parquet")
    only = ds.field("number") < 100
    if not found.to_table().equals(wanted.to_table()):
        return False
    some = found.to_table(columns=["word"], filter=only)
    return bool(some.equals(wanted.to_table(columns=["word"], filter=only)))


def duckdb_parquet(link: str, here: Path) -> bool:
    import duckdb
    import fsspec

    url = inside(link, "sub/table.parquet")
    with duckdb.connect() as database:
        database.register_filesystem(fsspec.url_to_fs(url)[0])
        query = "SELECT word, count(*), sum(number) FROM read_parquet(?) GROUP BY word ORDER BY 1"
        found = database.execute(query, [url]).fetchall()
        wanted = database.execute(query, [str(here / "sub/table.parquet")]).fetchall()
        return bool(found == wanted)


def forked_readers(link: str, here: Path) -> bool:
    """Have forked children read with the file system that they inherit, as data loaders do."""
    import multiprocessing

    import fsspec

    files, path = fsspec.url_to_fs(inside(link, "bytes.bin"))
    wanted = (here / "bytes.bin").read_bytes()
    if files.cat_file(path, 0, 100) != wanted[:100]:  # in use before it is inherited
        return False
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def read(seed: int) -> None:
        rng, right = random.Random(seed), 0
        try:
            with files.open(path) as file:
                for number in range(RANGES_EACH):
                    start = rng.randrange(len(wanted))
                    end = min(start + rng.randrange(1, 100_000), len(wanted))
                    if number % 2:
                        found = files.cat_file(path, start, end)
                    else:
                        file.seek(start)
                        found = file.read(end - start)
                    right += found == wanted[start:end]
        finally:
            answers.put(right)

    children = [context.Process(target=read, args=(seed,)) for seed in range(READERS)]
    for child in children:
        child.start()
    found = [answers.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    return found == [RANGES_EACH] * READERS


def pooch_retrieve(link: str, here: Path) -> bool:
    import pooch

    import bytestag

    wanted = (here / "array.npy").read_bytes()
    path = pooch.retrieve(
        inside(link, "array.npy"),
        "sha256:" + hashlib.sha256(wanted).hexdigest(),
        fname="array.npy",
        path=Path(os.environ["BYTESTAG_HOME"]) / "pooch",
        downloader=bytestag.pooch_downloader,
    )
    return Path(path).read_bytes() == wanted


CASES: tuple[Callable[[str, Path], bool], ...] = (
    pandas_csv,
    pandas_csv_gz,
    pandas_parquet,
    numpy_npy,
    xarray_zarr3,
    xarray_h5netcdf,
    h5netcdf_file,
    dask_csv,
    dask_parquet,
    pyarrow_dataset,
    duckdb_parquet,
    forked_readers,
    pooch_retrieve,
)


def run(case: str, link: str, here: Path) -> dict[str, Any]:
    """Return what a case found."""
    function = {function.__name__: function for function in CASES}[case]
    try:
        return {"equal": bool(function(link, here))}
    except ModuleNotFoundError as error:
        return {"missing": error.name}


def read_range(how: str, link: str, start: int, end: int) -> bytes:
    """Return bytes of a file by the one or the other door."""
    if how == "load_bytes":
        import bytestag

        return bytestag.load_bytes(link, start, end)
    import fsspec

    files, path = fsspec.url_to_fs(link)
    return bytes(files.cat_file(path, start, end))


def main(arguments: list[str]) -> None:
    if len(arguments) == 4:
        how, link, start, end = arguments
        sys.stdout.buffer.write(read_range(how, link, int(start), int(end)))
    else:
        print(json.dumps(run(arguments[0], arguments[1], Path(arguments[2]))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
