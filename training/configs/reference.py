"""Config → **docs/config.md**: each key with what is allowed, its default and its use.

python -m training.configs.reference > docs/config.md
"""

import json
from typing import Any

from training.configs.config import SECTIONS, Config

COMMAND = "python -m training.configs.reference > docs/config.md"
HEAD = f"""# Keys of a config

What a TOML file for `linnaeus train` may hold; [training.md](training.md#config) says
more of its sections. Unknown keys and values of another type are errors. This page is
written from the classes in `training/configs/`, and a test compares the two:

```sh
{COMMAND}
```
"""
BAR = r"\|"  # one that ends no cell
COLUMNS = ("| key | allowed | default | what |", "| --- | --- | --- | --- |")


def page() -> str:
    """The whole page as Markdown."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    top = {k: v for k, v in schema["properties"].items() if k not in SECTIONS}
    parts = [HEAD, *table(top, schema.get("required", ()), definitions)]
    for name, section in SECTIONS.items():
        own = definitions[section.__name__]
        several = schema["properties"][name].get("type") == "array"
        heading = f"[[{name}]]" if several else f"[{name}]"
        parts += [f"\n## `{heading}`\n", f"{one_line(own['description'])}\n"]
        parts += table(own["properties"], own.get("required", ()), definitions)
    return "\n".join(parts) + "\n"


def table(
    keys: dict[str, Any], required: list[str] | tuple[()], definitions: dict[str, Any]
) -> list[str]:
    """The lines of one section's table."""
    lines = list(COLUMNS)
    for key, schema in keys.items():
        cells = (
            f"`{key}`",
            allowed(schema, definitions),
            "*(needed)*" if key in required else default(schema.get("default")),
            one_line(schema.get("description", "")),
        )
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return lines


def allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a value may be, in words: `whole number, 1 to 4096`."""
    if "$ref" in schema:
        return allowed(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        some = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(allowed(each, definitions) for each in some)
    if schema["type"] == "array" and "prefixItems" in schema:
        items = [allowed(item, definitions) for item in schema["prefixItems"]]
        same = len(set(items)) == 1
        return f"list of {len(items)}: {items[0] if same else '; '.join(items)}"
    if schema["type"] == "array":
        least = f" of at least {schema['minItems']}" if "minItems" in schema else ""
        return f"list{least}, each: {allowed(schema['items'], definitions)}"
    return KINDS[schema["type"]] + bounds(schema)


KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "object": "table",
}


def bounds(schema: dict[str, Any]) -> str:
    """` ≥ 1, < 2` or ` of the form …`; nothing where all is allowed."""
    given = [
        f"{sign} {schema[name]:,}" for name, sign in SIGNS.items() if name in schema
    ]
    if "maxLength" in schema:
        given.append(f"of at most {schema['maxLength']:,} characters")
    if "pattern" in schema:
        given.append(f"of the form `{schema['pattern']}`")
    return f" {', '.join(given)}" if given else ""


SIGNS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}


def default(value: Any) -> str:
    """As TOML would have it; what is not set has none."""
    return "*(not set)*" if value in (None, [], {}, "") else f"`{json.dumps(value)}`"


def one_line(text: str) -> str:
    """Without the line breaks of the source."""
    return " ".join(text.split())


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - it is the output
