"""Look at every link of the documentation: ``links.py`` in its Markdown, ``links.py FOLDER`` in a site that was built.

Links within must lead to a file, and to a place in it where they name one. A site must load nothing from elsewhere:
scripts, styles, pictures and fonts are its own.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
#: What a browser loads by itself, by element.
_LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src", "video": "src"}
#: Kinds of links in the head of a page that load nothing.
_NAMED_ONLY = frozenset(("canonical", "next", "prev", "index", "search", "author", "license"))


class _Page(HTMLParser):
    """What a page links to, what it loads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.unnamed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places.update(filter(None, (values.get("id"), values.get("name"))))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img" and "alt" not in values:
            self.unnamed.append(values.get("src", ""))
        if tag in _LOADED and not _NAMED_ONLY & set(values.get("rel", "").split()):
            self.loaded.append(values.get(_LOADED[tag], ""))


@cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8", errors="replace"))


def faults_of_site(folder: Path) -> list[str]:
    """Return what is wrong with the links of a site."""
    faults = []
    for path in sorted(path for path in folder.rglob("*.html") if "_static" not in path.parts):
        page, where = _page(path), path.relative_to(folder).as_posix()
        faults += [f"{where}: {address} is loaded from elsewhere" for address in page.loaded if _foreign(address)]
        faults += [f"{where}: the picture {name} says nothing in words" for name in page.unnamed]
        for address in (*page.links, *page.loaded):
            if not _foreign(address) and (why := _broken(path, address)):
                faults.append(f"{where}: {address} {why}")
    styles = [path for path in folder.rglob("*.css") if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", _text(path))]
    return faults + [f"{path.relative_to(folder)}: loads something from elsewhere" for path in styles]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc) or address.startswith(("mailto:", "javascript:"))


def _broken(path: Path, address: str) -> str:
    if address.startswith("data:"):
        return ""
    parts = urlsplit(address)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return "is not there"
    place = unquote(parts.fragment)
    if place and target.suffix == ".html" and place not in _page(target).places:
        return "is a page without that place"
    return ""


def faults_of_markdown() -> list[str]:
    """Return the relative links in Markdown that lead nowhere."""
    faults = []
    made = (ROOT / "docs" / "gallery", ROOT / "docs" / "reference")  # when the site is built
    folders = (ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"))
    for path in (path for folder in folders for path in folder):
        for address in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
            target = (path.parent / urlsplit(address).path).resolve()
            if urlsplit(address).scheme or not urlsplit(address).path or any(target.is_relative_to(f) for f in made):
                continue
            if not target.exists():
                faults.append(f"{path.relative_to(ROOT)}: {address} is not there")
    return faults


def main() -> None:
    """Print the faults; the status says whether there are any."""
    faults = faults_of_site(Path(sys.argv[1])) if len(sys.argv) > 1 else faults_of_markdown()
    print("\n".join(faults) or "every link leads somewhere")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
