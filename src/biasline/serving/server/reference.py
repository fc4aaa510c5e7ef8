"""/docs: what may be asked, as one page that needs nothing from elsewhere."""

import json
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "h2{margin-top:2rem}code,pre{background:#f4f4f4}pre{padding:1rem;overflow:auto}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}"
)


def reference_page(schema: dict[str, Any]) -> str:
    """The page of an OpenAPI schema.

    Args:
        schema: whose bodies have their parts in place.
    """
    info = schema["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))} <a href='openapi.json'>openapi.json</a></p>",
    ]
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(told.get('summary', ''))}</p>"
            )
            content = told.get("requestBody", {}).get("content", {})
            for body in content.values():
                parts.append(_fields(body.get("schema", {})))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td><td>{escape(_type(told))}</td>"
        f"<td>{escape(told.get('description', ''))}</td></tr>"
        for name, told in schema.get("properties", {}).items()
    ]
    whole = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return (
        f"<table><tr><th>field (* required)</th><th>type</th><th></th></tr>{''.join(rows)}</table>"
        f"<details><summary>JSON schema</summary><pre>{whole}</pre></details>"
    )


def _type(told: dict[str, Any]) -> str:
    if "anyOf" in told:
        return " or ".join(dict.fromkeys(_type(one) for one in told["anyOf"]))
    kind = str(told.get("type", "object"))
    if kind == "array":
        return f"list of {_type(told.get('items', {}))}"
    return f"one of {', '.join(map(str, told['enum']))}" if "enum" in told else kind
