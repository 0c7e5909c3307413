"""A report parsed into elements and text, for tests."""

from html.parser import HTMLParser

from ppl_vae.report.page import write_report

VOID = ("img", "link", "meta")  # elements that have no end tag
SECTIONS = ["fit", "curves", "rows", "likelihood", "check", "strange", "code", "versions"]
FEW = {"num_samples": 60, "replicates": 40}
HOSTILE = ["<b>bold</b>", "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$x^{"]


class Page(HTMLParser):
    """The elements, attributes and text of a page; fails where a tag is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self):
        """What there is to see in each figure, in words."""
        drawn = [attributes for name, attributes in self.elements if name in ("img", "svg")]
        texts = [attributes.get("alt", attributes.get("aria-label")) for attributes in drawn]
        return [text for text in texts if text is not None]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report(path, *args, **keywords):
    """Write a report into a folder and return its page."""
    return Page(write_report(*args, path / "report.html", **{**FEW, **keywords}).read_text())
