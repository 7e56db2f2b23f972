"""The pages of the site that are no files of docs/: the generated reference, and files at the root."""

import os
import re
from functools import cache
from pathlib import Path, PurePosixPath

from documentation.command_pages import command_pages
from documentation.config_pages import config_pages
from documentation.exit_codes import exit_code_page
from documentation.python_api import python_api_page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {  # file at the root -> its page
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security_policy.md",
}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#]*)(#[^()\s]*)?\)")
CODE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


@cache
def generated_pages() -> dict[str, str]:
    """Path in the site -> Markdown."""
    pages = {
        "reference/exit_codes.md": exit_code_page(),
        "reference/python_api.md": python_api_page(),
    }
    pages |= {f"reference/config/{name}": text for name, text in config_pages().items()}
    pages |= {f"reference/commands/{name}": text for name, text in command_pages().items()}
    for file, page in ROOT_PAGES.items():
        pages[page] = (ROOT / file).read_text(encoding="utf-8")
    return pages


def site_links(text: str, page: str) -> str:
    """Markdown of a page with links as they are in the site: those to files that have no page become plain text."""
    parts = CODE.split(text)
    parts[::2] = [LINK.sub(lambda match: _link(match, page), part) for part in parts[::2]]
    return "".join(parts)


def source_of(page: str) -> str:
    """The path in the repository of a page of the site; the generated ones count as files of docs/."""
    return next((file for file, name in ROOT_PAGES.items() if name == page), f"docs/{page}")


def _link(match: re.Match[str], page: str) -> str:
    text, path, anchor = match[1], match[2], match[3] or ""
    if not path or "://" in path or path.startswith("mailto:"):
        return match[0]
    target = os.path.normpath(PurePosixPath(source_of(page)).parent / path)
    site = ROOT_PAGES.get(target) or (
        target.removeprefix("docs/") if target.startswith("docs/") else None
    )
    if site is None:
        return text
    return f"[{text}]({os.path.relpath(site, PurePosixPath(page).parent)}{anchor})"


def without_breaks(html: str) -> str:
    """A page as HTML with no-break spaces in `95 %`, but for code, which is copied."""
    return re.sub(
        r"<(pre|code)\b.*?</\1>|(?<=\d) (?=%)",
        lambda match: match[0].strip() or "&nbsp;",
        html,
        flags=re.S,
    )
