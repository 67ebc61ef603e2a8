"""A `.pt` file with one tensor, read without torch and without unpickling.

`torch.save` writes a zip: `data.pkl` tells how the tensor lies in `data/0`. The pickle's opcodes
are walked here as plain data: a name stays a name and a call stays a note of the call, so nothing
that the file says is ever run.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.problems import decoding, problem

_MAX_ENTRIES = 1000
_MAX_PICKLE = 64 * 2**10
_STORAGES = {
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
    "torch HalfStorage": "f2",
    "torch IntStorage": "i4",
    "torch LongStorage": "i8",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
}
_STEP = "save one plain CPU tensor with torch.save(points, path), or save an .npy"


@dataclass(frozen=True)
class _Name:
    """A global that the pickle mentions; never looked up."""

    path: str


@dataclass(frozen=True)
class _Call:
    """A call that the pickle asks for; never made."""

    function: Any
    args: Any


_MARK = object()


def read_torch_tensor(data: bytes, max_values: int, name: str) -> NDArray[Any]:
    """Read the one tensor of a `torch.save` file.

    Args:
        data: The file, in torch's zip layout (torch 1.6 and later).
        max_values: Most values that the tensor may have.
        name: The medium's name.

    Raises:
        MediaError: It is damaged, compressed, larger than it may be, or holds anything else.
    """
    with decoding(name, "a .pt file with one tensor", _STEP):
        archive = _open(data, name)
        root = _root(archive, name)
        call = _find_tensor(_walk(archive.read(f"{root}data.pkl"), name), name)
        return _tensor(call, archive, root, max_values, name)


def _refused(name: str, found: str) -> Exception:
    return problem(name, found, "a .pt file with one tensor", _STEP)


def _open(data: bytes, name: str) -> zipfile.ZipFile:
    """Open the zip if it is small enough to list and holds nothing compressed."""
    if data.count(b"PK\x01\x02") > _MAX_ENTRIES:
        raise _refused(name, "an archive of very many files")
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _refused(name, "a compressed archive")
    if sum(entry.file_size for entry in entries) > len(data):
        raise _refused(name, "an archive that claims more bytes than there are")
    return archive


def _root(archive: zipfile.ZipFile, name: str) -> str:
    for entry in archive.infolist():
        if entry.filename.endswith("/data.pkl") and entry.filename.count("/") == 1:
            if entry.file_size > _MAX_PICKLE:
                raise _refused(name, "a description of the tensor that is far too long")
            return entry.filename.removesuffix("data.pkl")
    raise _refused(name, "a zip archive that torch.save did not write")


def _walk(pickle: bytes, name: str) -> Any:
    """Follow the pickle's opcodes as data and return what it describes."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(pickle):
        code = opcode.name
        if code == "STOP":
            return stack.pop()
        if code in {"BINPUT", "LONG_BINPUT"}:
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in {"BINGET", "LONG_BINGET"}:
            stack.append(memo[argument])
        elif code not in {"PROTO", "FRAME"} and not _step(code, argument, stack):
            raise _refused(name, f"a pickle with the instruction {code}")
    raise _refused(name, "a pickle without an end")


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}


def _step(code: str, argument: Any, stack: list[Any]) -> bool:
    """Do one opcode; return False for one that no tensor needs."""
    if code in _CONSTANTS:
        stack.append(_CONSTANTS[code])
    elif code in _LITERALS:
        stack.append(argument)
    elif code == "GLOBAL":
        stack.append(_Name(argument))
    elif code == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Name(f"{module} {attribute}"))
    elif code == "MARK":
        stack.append(_MARK)
    elif code in {"EMPTY_DICT", "EMPTY_LIST"}:
        stack.append([])
    else:
        return _build(code, stack)
    return True


def _build(code: str, stack: list[Any]) -> bool:
    """Do an opcode that joins values; dicts are kept as the list of their values."""
    if code in {"TUPLE1", "TUPLE2", "TUPLE3"}:
        count = int(code[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif code == "TUPLE":
        stack.append(tuple(_marked(stack)))
    elif code == "APPEND":
        value = stack.pop()
        stack[-1].append(value)
    elif code == "APPENDS":
        values = _marked(stack)
        stack[-1].extend(values)
    elif code == "SETITEM":
        value, _ = stack.pop(), stack.pop()
        stack[-1].append(value)
    elif code == "SETITEMS":
        values = _marked(stack)
        stack[-1].extend(values[1::2])
    elif code == "BINPERSID":
        stack.append(_Call("storage", stack.pop()))
    elif code == "REDUCE":
        args, function = stack.pop(), stack.pop()
        stack.append(_Call(function, args))
    else:
        return False
    return True


def _marked(stack: list[Any]) -> list[Any]:
    start = max(i for i, value in enumerate(stack) if value is _MARK)
    values = stack[start + 1 :]
    del stack[start:]
    return values


def _find_tensor(value: Any, name: str) -> _Call:
    """Take the tensor itself, or the only one in a list or dict."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, _Call) and value.function == _Name("torch._utils _rebuild_parameter"):
        value = value.args[0]
    if isinstance(value, _Call) and value.function == _Name("torch._utils _rebuild_tensor_v2"):
        return value
    raise _refused(name, "something other than one plain tensor")


def _tensor(
    call: _Call, archive: zipfile.ZipFile, root: str, max_values: int, name: str
) -> NDArray[Any]:
    """Lay the tensor's shape over the bytes of its storage."""
    storage, offset, shape, strides = call.args[:4]
    _, kind, key, _, _ = storage.args
    if not isinstance(kind, _Name) or kind.path not in _STORAGES:
        raise _refused(name, "a tensor of a type that is not read here")
    order = (
        ">"
        if f"{root}byteorder" in archive.namelist()
        and (archive.read(f"{root}byteorder").strip() == b"big")
        else "<"
    )
    flat = np.frombuffer(archive.read(f"{root}data/{key}"), order + _STORAGES[kind.path])
    _check_layout(offset, shape, strides, len(flat), max_values, name)
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], shape, tuple(step * flat.itemsize for step in strides), writeable=False
    )
    return np.array(view)


def _check_layout(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], size: int, limit: int, name: str
) -> None:
    numbers = (offset, *shape, *strides)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not whole or len(shape) != len(strides) or len(shape) > 8:
        raise _refused(name, "a tensor with an impossible layout")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 in shape or last >= size:
        raise _refused(name, "a tensor that claims more values than its file holds")
    if math.prod(shape) > limit:
        raise _refused(name, f"a tensor of more than {limit:,} values")
