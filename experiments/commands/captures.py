"""The command about packet captures that spraylab did not take: `captures`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from experiments.commands.common import BAD_INPUT, end, foot
from experiments.commands.streams import echo

if TYPE_CHECKING:
    from experiments.captures.decode import Capture


@click.command(epilog=foot({"0": "done", "2": "a FILE is no capture or cannot be read, or OUT cannot be written"}))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Write a row a packet of all files: time, addresses, ports, TCP's fields; pandas.read_parquet reads it",
)
def captures(files: tuple[Path, ...], parquet: Path | None) -> None:
    """Say what is in packet captures of your own.

    FILE is a pcap or pcapng file as tcpdump and Wireshark write, as it is or compressed with gzip. For each: packets,
    bytes, first and last time, flows, goodput, and what was sent again. Of a damaged file, what comes before the
    damage; an odd packet is counted with the reason, and the rest is read. Needs no root.

    Give captures of one interface each: where a packet is seen twice, its second sight counts as sent again. What was
    lost before that interface is seen once, and does not.

    \b
    Examples:
      spraylab captures mine.pcap
      spraylab captures client.pcapng server.pcap.gz --parquet packets.parquet
    """
    from experiments.captures.decode import read_capture
    from experiments.captures.files import CaptureError
    from experiments.captures.overview import in_utf8, overview
    from experiments.results.folder import new_file

    if parquet and (same := [file for file in files if _is(file, parquet)]):
        end(f"--parquet: {same[0]} is one of the captures, and would be replaced: name another file", BAD_INPUT)
    with contextlib.ExitStack() as stack:
        packets = stack.enter_context(_Packets(stack.enter_context(new_file(parquet)))) if parquet else None
        for file in files:
            try:
                capture = read_capture(file)
            except CaptureError as error:
                end(in_utf8(str(error)), BAD_INPUT)
            except OSError as error:
                end(in_utf8(f"{file} cannot be read: {error.strerror or error}"), BAD_INPUT)
            told = overview(capture)
            echo(in_utf8(str(file)))
            for about, said in told.items():
                echo(f"  {about + ':':<14} {said}")
            for problem in capture.problems:
                echo(f"  {'problem:':<14} {in_utf8(problem.removeprefix(f'{file}: '))}")
            if packets:
                packets.add(capture, in_utf8(str(file)))
    if parquet:
        echo(f"written: {in_utf8(str(parquet))}")


def _is(file: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return file.samefile(other)
    return False


class _Packets:
    """A parquet file that grows by a capture at a time, so that only one is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow.parquet

        self._file = file
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def add(self, capture: Capture, name: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        from experiments.captures.overview import with_addresses

        table = pa.Table.from_pandas(with_addresses(capture, name), preserve_index=False)
        if self._writer is None:
            text = {"file", "src", "dst"}  # of a capture without packets, nobody could tell
            fields = [field.with_type(pa.string()) if field.name in text else field for field in table.schema]
            self._writer = pyarrow.parquet.ParquetWriter(self._file, pa.schema(fields))
        self._writer.write_table(table.cast(self._writer.schema))

    def __enter__(self) -> _Packets:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()
