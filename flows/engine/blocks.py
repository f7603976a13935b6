"""Whether a function that waits has a block open: a ``with`` or a ``try`` that closing it would leave."""

import dis
from functools import lru_cache
from types import CodeType
from typing import Any


def has_open_block(body: Any) -> bool:
    """Return True if closing ``body``, a suspended generator or coroutine, might run any of its code.

    Looks also into what it awaits or yields from; True if that is something that cannot be looked into.
    """
    while body is not None:
        frame = getattr(body, "gi_frame", None) or getattr(body, "cr_frame", None)
        if frame is None or _is_in_block(frame.f_code, frame.f_lasti):
            return True
        body = getattr(body, "gi_yieldfrom", None) or getattr(body, "cr_await", None)
    return False


@lru_cache(maxsize=1024)
def _is_in_block(code: CodeType, offset: int) -> bool:
    """Tell by the exception table (CPython, Objects/exception_handling_notes.txt) who would handle an error here.

    From 3.12 on ``yield from`` and ``await`` have a handler of their own, and so has each generator as a whole.
    """
    bytecode = dis.Bytecode(code)
    instructions = {instruction.offset: instruction.opname for instruction in bytecode}
    entries = bytecode.exception_entries  # type: ignore[attr-defined]  # missing from the stubs
    while handlers := [entry.target for entry in entries if entry.start <= offset < entry.end]:
        match instructions[handlers[0]]:
            case "CLEANUP_THROW":
                offset = handlers[0]
            case "CALL_INTRINSIC_1":
                return False
            case _:
                return True
    return False
