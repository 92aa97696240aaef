"""Reading what strangers wrote: manifests, files of deviations, reports that come back. (Their arrays: npz.py.)

Only an ordinary file of a bearable size is read, nothing in it is executed, and what it holds is compared with a schema
before anything is done with it. All that cannot be used raises Unreadable.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ref_bioplaus.machine.files import to_read

LARGEST = 16 << 20  # bytes of a file: all that we write together has 9 MB
LONGEST = 80  # characters of a stranger's value in a sentence


class Unreadable(ValueError):
    """A file that cannot be used. The message, one line, follows the file's name: "is not JSON (...)"."""


def content(file: Path, most: int = LARGEST) -> bytes:
    """The bytes of an ordinary file. Raises Unreadable, for one of more than `most` bytes too."""
    try:
        with to_read(file) as opened:
            found = opened.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with the character 0
        raise Unreadable(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(found) > most:
        raise Unreadable(f"cannot be read (it has more than {most:,} bytes)")
    return found


def json_of(file: Path) -> Any:
    """What a file of JSON holds. Raises Unreadable."""
    return parsed(file, "JSON", lambda text: json.loads(text, parse_constant=no_number))


def toml_of(file: Path) -> dict[str, Any]:
    """What a file of TOML holds. Raises Unreadable."""
    return parsed(file, "TOML", tomllib.loads)


def parsed(file: Path, language: str, parse: Callable[[str], Any]) -> Any:
    """What a parser makes of a file's text, UTF-8 with or without a mark. Raises Unreadable."""
    data = content(file)
    try:
        return parse(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise Unreadable(f"is not {language} that can be read (it is nested too deeply)") from error
    except ValueError as error:
        raise Unreadable(f"is not {language} ({line(str(error))})") from error


def no_number(name: str) -> None:
    """Raise ValueError for NaN and the like, which Python takes for JSON."""
    raise ValueError(f"{name} is no number in JSON")


def line(text: str, most: int = 2 * LONGEST) -> str:
    """Text as one line of ASCII, whatever else is in it as \\n, \\x1b, \\u202e; no longer than `most`."""
    found = re.sub("[^ -~]", lambda other: other[0].encode("unicode_escape").decode(), text[: most + 1])
    return found if len(found) <= most else f"{found[: most - 3]}..."


def shown(value: Any) -> str:
    """A stranger's value in a short line: text in quotes, lists and objects by their kind alone."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 4 * LONGEST:  # Python writes no integer of 4,301 digits
        return f"an integer of {value.bit_length()} bits"
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return f'"{line(text, LONGEST)}"' if isinstance(value, str) else line(text, LONGEST)


# Schemas: of JSON Schema as much as ours use

Schema = dict[str, Any]
KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "object": ("an object", (dict,)),
    "array": ("a list", (list,)),
    "string": ("text", (str,)),
    "boolean": ("true or false", (bool,)),
    "integer": ("an integer", (int,)),
    "number": ("a number", (int, float)),
}
COMPARED: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", lambda number, bound: number >= bound),
    "exclusiveMinimum": ("more than", lambda number, bound: number > bound),
    "maximum": ("at most", lambda number, bound: number <= bound),
}
COUNTED = {"minItems": "at least", "minLength": "at least", "minProperties": "at least",
           "maxItems": "at most", "maxLength": "at most"}  # fmt: skip
WORDS = ("$schema", "$id", "$defs", "title", "description")  # that ask for nothing


def check(data: Any, schema: Schema, what: str) -> None:
    """Raise Unreadable, with the first objection of a schema to data that should be `what`."""
    for objection in objections(data, schema, schema):
        raise Unreadable(f"is not {what} ({objection})")


def objections(data: Any, schema: Schema, root: Schema, place: str = "") -> Iterator[str]:
    """What a schema objects to in data, in words. Raises KeyError for a keyword of the schema that is not known."""
    where = place or "it"
    kind = schema.get("type")
    if kind and (not isinstance(data, KINDS[kind][1]) or isinstance(data, bool) and kind != "boolean"):
        yield f"{where} is {shown(data)}, expected {KINDS[kind][0]}"
        return
    if kind == "number" and not abs(data) <= sys.float_info.max:
        yield f"{where} is {shown(data)}, expected a number that float64 holds"
    for keyword, value in schema.items():
        if keyword == "$ref":
            yield from objections(data, root["$defs"][value.removeprefix("#/$defs/")], root, place)
        elif keyword in ("const", "enum"):
            known = [value] if keyword == "const" else value
            if not any(type(data) is type(one) and data == one for one in known):
                yield f"{where} is {shown(data)}, expected {' or '.join(map(shown, known))}"
        elif keyword == "anyOf":
            if all(any(objections(data, option, root)) for option in value):
                yield f"{where} is {shown(data)}, which has none of the forms that it may have"
        elif keyword == "if":
            if not any(objections(data, value, root)):
                yield from objections(data, schema["then"], root, place)
        elif keyword == "pattern":
            if not re.fullmatch(value, data):
                yield f"{where} is {shown(data)}, expected text like {value}"
        elif keyword in COMPARED:
            words, fits = COMPARED[keyword]
            if not fits(data, value):
                yield f"{where} is {shown(data)}, expected {words} {value}"
        elif keyword in COUNTED:
            if len(data) < value if COUNTED[keyword] == "at least" else len(data) > value:
                yield f"{where} has length {len(data)}, expected {COUNTED[keyword]} {value}"
        elif keyword == "required":
            yield from (f'{where} has no "{name}"' for name in value if name not in data)
        elif keyword == "propertyNames":
            for name in data:
                yield from objections(name, value, root, f"a name in {where}")
        elif keyword in ("items", "prefixItems"):
            inner = ((item, value) for item in data) if keyword == "items" else zip(data, value)
            for i, (item, part) in enumerate(inner):
                yield from objections(item, part, root, f"{place}[{i}]")
        elif keyword in ("properties", "additionalProperties"):
            yield from inside(data, schema, root, place, keyword == "additionalProperties")
        elif keyword not in ("type", "then", *WORDS):
            raise KeyError(keyword)


def inside(data: dict[str, Any], schema: Schema, root: Schema, place: str, others: bool) -> Iterator[str]:
    """What a schema objects to in an object's named parts, or in all its others."""
    named = schema.get("properties", {})
    for name, part in data.items():
        if others == (name in named):
            continue
        wanted = schema["additionalProperties"] if others else named[name]
        if wanted is False:
            yield f"{place or 'it'} has an unknown {shown(name)}"
        else:
            key = name if re.fullmatch(r"[\w-]{1,40}", name, re.ASCII) else f"[{shown(name)}]"
            yield from objections(part, wanted, root, f"{place}.{key}".removeprefix("."))
