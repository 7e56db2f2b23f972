"""Reads an HTML page as a browser would: tags, addresses and text."""

from html.parser import HTMLParser

# For a browser: whether the page fits its window, what stands beyond it outside of a box, and which boxes scroll.
BEYOND = """[document.scrollingElement.scrollWidth <= innerWidth,
  [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 &&
    !e.closest(".scroll, pre, svg")).map(e => e.outerHTML.slice(0, 80)),
  [...document.querySelectorAll(".scroll:has(table)")].map(e => e.scrollWidth > e.clientWidth)]"""


class ParsedPage(HTMLParser):
    """Tags, addresses, and the text outside of styles and scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.texts, self.handlers = [], [], [], []
        self._inside = ""
        self.feed(html)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace(" \0 ", "").split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._inside = tag
        self.texts += ["\0"] * (tag == "wbr")  # the text goes on
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "srcset", "action")
        ]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.texts.append(data)
