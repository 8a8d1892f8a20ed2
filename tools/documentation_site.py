"""What MkDocs has to know to build the site from pages that are written to be read in the repository; the hook of mkdocs.yml.

Pages that stand outside docs/, because people and package indexes look for them at the root, become pages of the site; links between
them and docs/ are turned accordingly. Screenshots, which the repository does not hold, are put in where they have been taken.
A fence such as "```yaml keys" tells the tests what to do with a block; the site needs the language only.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "build" / "screenshots"
"""What `make screenshots` took; docs/page.md shows it."""
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "mm_gateway/builtin_models/tiny_chat/README.md": "tiny-chat.md",
}
"""Path in the repository -> page of the site."""

_LINK = re.compile(r"\]\((?!\w+:|#|/)([^)#\s]+)")
_TEST_WORD = re.compile(r"^(```\w+) \w+$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if not source.endswith(".md"):
            text = f"# {source.capitalize()}\n\n```text\n{text}```\n"
        files.append(File.generated(config, page, content=text))
    for picture in sorted(SCREENSHOTS.glob("*.png")):
        files.append(File.generated(config, f"screenshots/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    pictures = "\n\n".join(
        f"![{picture.stem.replace('-', ', ')}](screenshots/{picture.name})" for picture in sorted(SCREENSHOTS.glob("*.png"))
    )
    markdown = markdown.replace("<!-- screenshots -->", pictures)
    place = next((source for source, name in OUTSIDE.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")
    return _TEST_WORD.sub(r"\1", _LINK.sub(lambda link: f"]({_on_the_site(link[1], place, page.file.src_uri)}", markdown))


def _on_the_site(target: str, place: str, page: str) -> str:
    """A relative link of the file `place` in the repository, as a link of the site's `page`."""
    path = normpath(join(dirname(place), target))
    inside = OUTSIDE.get(path, path.removeprefix("docs/"))
    return relpath(inside, dirname(page) or ".")
