"""What MkDocs calls while it builds the site: adds pages, and adapts links."""

from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from documentation.pages import generated_pages, site_links, without_breaks


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Expands `reference/commands/` in the navigation to the pages of that folder."""
    config.nav = _expanded(config.nav, sorted(generated_pages()))
    return config


def _expanded(entry: Any, pages: list[str]) -> Any:
    if isinstance(entry, list):
        return [_expanded(inner, pages) for inner in entry]
    if isinstance(entry, dict):
        return {title: _expanded(inner, pages) for title, inner in entry.items()}
    if not entry.endswith("/"):
        return entry
    inside = [page for page in pages if page.startswith(entry) and page != f"{entry}index.md"]
    return [f"{entry}index.md", *({PurePosixPath(page).stem: page} for page in inside)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    return site_links(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    return without_breaks(html)
