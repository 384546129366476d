"""Loads nftables rulesets in many network namespaces at once, by nft's own library (libnftables(3)).

Loading is mostly waiting for the kernel, some 10 ms a namespace, and a thread can wait in each.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from emulator.errors import EmulatorError
from emulator.namespaces import inside

_LIBRARY = "libnftables.so.1"
_AT_ONCE = 16
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


def load(rulesets: Mapping[int, str]) -> None:
    """Load each ruleset, as one transaction, in the network namespace of the process it is listed under.

    Raises EmulatorError with what nft complains about.
    """
    library = _library()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda item: _load(library, *item), rulesets.items()))


def counted(pid: int, table: str, name: str) -> dict[tuple[Any, ...], int]:
    """Return the bytes that each element of a set with counters has counted, in the namespace of process `pid`.

    Raises EmulatorError with what nft complains about.
    """
    answer = json.loads(_load(_library(), pid, f"list set ip {table} {name}", _JSON))
    elements = [each for entry in answer["nftables"] for each in entry.get("set", {}).get("elem", ())]
    return {tuple(each["elem"]["val"]["concat"]): each["elem"]["counter"]["bytes"] for each in elements}


def mapped(pid: int, table: str, name: str) -> dict[tuple[Any, ...], int]:
    """Return what each element of a map is mapped to, a number, in the namespace of process `pid`.

    Raises EmulatorError with what nft complains about.
    """
    answer = json.loads(_load(_library(), pid, f"list map ip {table} {name}", _JSON))
    elements = [each for entry in answer["nftables"] for each in entry.get("map", {}).get("elem", ())]
    return {tuple(key["concat"]): int(value) for key, value in elements}


def _load(library: Any, pid: int, ruleset: str, flags: int = 0) -> str:
    """What nft answers, which is nothing to most."""
    with inside(pid):
        context = ctypes.c_void_p(library.nft_ctx_new(0))
        try:
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_output_set_flags(context, flags)
            if library.nft_run_cmd_from_buffer(context, ruleset.encode()) != 0:
                said = library.nft_ctx_get_error_buffer(context).decode(errors="replace").strip().splitlines()
                raise EmulatorError(f"nftables refuses a ruleset: {said[0] if said else 'no message'}")
            return str(library.nft_ctx_get_output_buffer(context).decode())
        finally:
            library.nft_ctx_free(context)


@functools.cache
def _library() -> Any:
    try:
        library: Any = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EmulatorError("nftables is not installed: run ./spraylab once as root to install it") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    return library
