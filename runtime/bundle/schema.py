"""The JSON Schema of ``manifest.json``, generated from the types that read it:

python -m uflow_edge.runtime.bundle.schema > docs/bundle.schema.json
"""

from typing import Any

import msgspec

from uflow_edge.runtime.bundle.manifest import SCHEMA
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.storage.strict_json import to_json

_OLDEST = 3  # versions 1 and 2 named one field differently


def manifest_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that holds for both kinds of manifest, from version 3 on.

    It covers types and ranges of single fields; `Manifest.check` also compares fields with each other.
    """
    kinds = (UFlowManifest, UNetManifest)
    _, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition.pop("description", None)  # docs/bundle.md describes the fields
        if "properties" in definition:
            definition["additionalProperties"] = False
    for kind in kinds:
        definition = definitions[kind.__name__]
        head = {"schema": {"type": "integer", "minimum": _OLDEST, "maximum": SCHEMA}, "kind": {"const": kind.kind}}
        definition["properties"] = {**head, **definition["properties"]}
        definition["required"] = ["schema", "kind", *definition["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manifest.json of a bundle",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": _with_standard_patterns(definitions),
    }


def _with_standard_patterns(value: Any) -> Any:
    r"""The same with ``$`` for Python's ``\Z``, which other languages do not know."""
    if isinstance(value, dict):
        return {
            key: one.replace("\\Z", "$") if key == "pattern" else _with_standard_patterns(one)
            for key, one in value.items()
        }
    return [_with_standard_patterns(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    print(to_json(manifest_schema(), indent=2))
