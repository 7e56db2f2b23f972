"""Checks a built site: what it loads is in it, and links and anchors lead to something in it."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
}  # requested with the page
LINKED_RELATIONS = ("canonical", "prev", "next", "alternate", "edit")


class _Page(HTMLParser):
    """What a page loads, the addresses that it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded, self.links, self.anchors = list[str](), list[str](), {"", "__top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values and values.get("rel") not in LINKED_RELATIONS:
            self.loaded.append(values[LOADED[tag]])


def faults(site: Path) -> list[str]:
    """One line for each thing that is loaded from elsewhere, and each link that leads nowhere."""
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    lines = []
    for file, page in pages.items():
        name = file.relative_to(site)
        for address in page.loaded:
            if _is_external(address):
                lines.append(f"{name}: loads {address}")
        for address in [*page.loaded, *page.links]:
            path, anchor = urldefrag(address)
            if _is_external(address) or address.startswith("mailto:") or name.name == "404.html":
                continue
            target = (file.parent / unquote(path)).resolve() if path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                lines.append(f"{name}: no such page: {address}")
            elif target in pages and unquote(anchor) not in pages[target].anchors:
                lines.append(f"{name}: no such anchor: {address}")
    for sheet in site.rglob("*.css"):
        if "url(http" in sheet.read_text(encoding="utf-8") or "url(//" in sheet.read_text(
            encoding="utf-8"
        ):
            lines.append(f"{sheet.relative_to(site)}: loads from elsewhere")
    return lines


def _is_external(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))
