"""Reads pickles as data: a stack machine builds plain values and never imports or calls anything."""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from uflow_edge.export.checkpoints.inert import Inert
from uflow_edge.export.wording import listed
from uflow_edge.runtime.errors import BadInput

_MOST_STEPS = 1_500_000  # of a pickle; a thousand tensors take 50,000, and hashes of 500,000 pictures 1,000,000
_LARGEST_KEY = 1 << 60  # larger whole numbers can be made to collide in a dictionary

_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotData(BadInput):
    """A pickle that does more than build data."""


def read_pickle(
    file: BinaryIO,
    construct: Callable[[str, tuple[Any, ...]], Any],
    persistent: Callable[[Any], Any],
    allowed: Callable[[str], bool],
) -> Any:
    """The value that a pickle describes.

    Args:
        file: read up to the end of the pickle.
        construct: returns the value that replaces a call of this name with these arguments.
        persistent: returns the value that replaces an object stored elsewhere.
        allowed: whether the pickle may contain a name.

    Raises:
        NotData: it names something that is not allowed, or is too long.
        Exception: it is damaged; of many types.
    """
    return _PickleMachine(construct, persistent, allowed).run(file)


class _PickleMachine:
    """Python's pickle machine, without calls."""

    def __init__(
        self,
        construct: Callable[[str, tuple[Any, ...]], Any],
        persistent: Callable[[Any], Any],
        allowed: Callable[[str], bool],
    ) -> None:
        self.construct, self.persistent, self.allowed = construct, persistent, allowed
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.refused: dict[str, None] = {}

    def run(self, file: BinaryIO) -> Any:
        argument: Any
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if step > _MOST_STEPS:
                raise NotData(f"its pickle has more than {_MOST_STEPS} steps, which no network needs")
            name = opcode.name
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack[-_TUPLES[name] :] = [tuple(self.stack[-_TUPLES[name] :])]
            elif name.endswith("PUT"):
                self.memo[argument] = self.stack[-1]
            elif name.endswith("GET"):
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME", "STOP"):
                getattr(self, "do_" + name.lower())(argument)
        if self.refused:
            raise NotData(f"it holds code, which is never run (it names {listed(self.refused)})")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def named(self, module: str, name: str) -> Inert:
        """The placeholder for a class or function, under its name in Python 3."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        name = f"{module}.{name}"
        if not self.allowed(name):
            self.refused[name] = None
        return Inert(name)

    def do_mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def do_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def do_pop_mark(self, _: None) -> None:
        self.since_mark()

    def do_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def do_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_list(self, _: None) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def do_tuple(self, _: None) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def do_dict(self, _: None) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def do_empty_set(self, _: None) -> None:
        self.stack.append(Inert("builtins.set"))

    def do_frozenset(self, _: None) -> None:
        items = self.since_mark()
        self.stack.append(Inert("builtins.frozenset", items=items))

    def do_append(self, _: None) -> None:
        self.add_items([self.stack.pop()])

    def do_appends(self, _: None) -> None:
        self.add_items(self.since_mark())

    do_additems = do_appends

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Inert) else _checked(target, list)).extend(items)

    def do_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def do_setitems(self, _: None) -> None:
        self.set_items(self.since_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(items)
        else:
            _fill(_checked(target, dict), items)

    def do_global(self, name: str) -> None:
        self.stack.append(self.named(*name.split(" ", 1)))

    def do_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(_checked(module, str), _checked(name, str)))

    def do_reduce(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(self.construct(_checked(called, Inert).original, _checked(arguments, tuple)))

    do_newobj = do_reduce

    def do_newobj_ex(self, _: None) -> None:
        self.stack.pop()  # arguments by name
        self.do_reduce(None)

    def do_obj(self, _: None) -> None:
        called, *arguments = self.since_mark()
        self.stack.append(self.construct(_checked(called, Inert).original, tuple(arguments)))

    def do_inst(self, name: str) -> None:
        arguments = self.since_mark()
        self.stack.append(self.construct(self.named(*name.split(" ", 1)).original, tuple(arguments)))

    def do_build(self, _: None) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state  # anything else that has attributes, such as an OrderedDict, needs none here

    def do_persid(self, identity: str) -> None:
        self.stack.append(self.persistent(identity))

    def do_binpersid(self, _: None) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def as_dict(items: Any) -> dict[Any, Any]:
    """A dictionary from the arguments of a kind of dictionary: another dictionary, or pairs."""
    if isinstance(items, dict):
        return items
    pairs = _checked(items, list)
    found: dict[Any, Any] = {}
    for pair in pairs:
        _fill(found, list(pair[:2]))
    pairs.clear()  # else a short pickle could have a long list turned into thousands of dictionaries
    return found


def _fill(target: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, int) and abs(key) > _LARGEST_KEY:
            raise NotData("a dictionary in it has a number of more than 60 bits for a key")
        if not isinstance(key, str | bytes | int | float | Inert | None):
            raise NotData(f"a dictionary in it has a {type(key).__name__} for a key")
        target[key] = value


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise NotData(f"its pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value
