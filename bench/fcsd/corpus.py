"""corpus.py OUT TRAIN_MB: the packages that corpus.sh has unpacked at OUT/packages as documents of plain text, divided
into train, valid, calib and test by the SHA-256 of what names a document (so that a document has its part whatever else is
there). A paragraph that has occurred before is left out everywhere, so no text of one part is in another. Of train its
first TRAIN_MB megabytes are kept.
corpus.py OUT --count: sizes and tokens, to corpus.json."""

import gzip
import hashlib
import html.parser
import itertools
import json
import os
import re
import sys

# Of 1000 documents; the rest is for training.
PARTS = {"test": 40, "valid": 30, "calib": 30}
MEGABYTE = 1_000_000
# The most that a source may contribute, so that no dictionary outweighs the prose.
LIMITS = {"gcide": 7, "foldoc": 4, "perl": 4, "postgresql": 5, "python": 7}


class Paragraphs(html.parser.HTMLParser):
    """The paragraphs of a page, without navigation, tables and programs."""

    BLOCKS = {"p", "div", "li", "dd", "dt", "h1", "h2", "h3", "h4", "h5", "blockquote", "br", "section", "body", "ul", "ol"}
    LEFT_OUT = {"script", "style", "head", "nav", "table", "pre", "footer"}

    def __init__(self):
        super().__init__()
        self.found, self.now, self.inside = [], [], 0

    def handle_starttag(self, tag, attrs):
        classes = dict(attrs).get("class") or ""
        if tag in self.LEFT_OUT or (self.inside and tag == "div") or re.search("nav|toc|index", classes) and tag == "div":
            self.inside += 1
        elif tag in self.BLOCKS:
            self.end()

    def handle_endtag(self, tag):
        if self.inside and (tag in self.LEFT_OUT or tag == "div"):
            self.inside -= 1
        elif tag in self.BLOCKS:
            self.end()

    def handle_data(self, data):
        if not self.inside:
            self.now.append(data)

    def end(self):
        text = " ".join("".join(self.now).split())
        self.now = []
        if text:
            self.found.append(text)


def of_html(text):
    parser = Paragraphs()
    parser.feed(text)
    parser.end()
    return parser.found


def of_plain(text):
    """Paragraphs between empty lines; hard line ends are undone, indented blocks that look like programs left out."""
    found = []
    for block in re.split(r"\n\s*\n", text.expandtabs(4)):
        lines = [line for line in block.split("\n") if not re.fullmatch(r"\s*([=~^\-+.*\"'`#_]{3,}|\[.*\]|\+)?\s*", line)]
        if lines:
            found.append(" ".join(" ".join(lines).split()))
    return found


def without_directives(text):
    """reStructuredText without `.. name::` and what is indented below it, except for descriptions of functions and notes."""
    lines, below = [], None
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if below is not None and (not line.strip() or indent > below):
            continue
        below = None
        if re.match(r"\s*\.\. ", line):
            described = re.match(r"\s*\.\. (\w*function|class|method|note|warning|versionchanged|versionadded|seealso)::", line)
            below = None if described else indent
            continue
        lines.append(line)
    return "\n".join(lines)


def of_rst(text):
    text = without_directives(text)
    text = re.sub(r":[a-z:+]+:`~?!?([^`<]*?)\s*(<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"``([^`]*)``|`([^`<]*?)\s*<[^`>]*>`_+", r"\1\2", text)
    return of_plain(re.sub(r"\*{1,2}([^*\n]+)\*{1,2}|\|([a-z]+)\|", r"\1\2", text).replace("::", ":"))


def of_asciidoc(text):
    text = re.sub(r"^(-{4,}|\.{4,})$.*?^\1$", "", text, flags=re.M | re.S)
    text = re.sub(r"linkgit:([\w-]+)\[(\d)\]", r"\1(\2)", text)
    return of_plain(text.replace("`", ""))


def of_pod(text):
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        if block.startswith((" ", "\t")) or re.match(r"=(over|back|cut|pod|begin|end|encoding|for)\b", block):
            continue
        block = re.sub(r"^=\w+ ?", "", block)
        for _ in range(3):  # codes within codes
            block = re.sub(r"[A-Z]<<+ (.*?) >>+", r"\1", block)
            block = re.sub(r"[BCFISX]<([^<>]*)>", r"\1", block)
            block = re.sub(r"L<(?:[^<>|]*\|)?([^<>]*)>", r"\1", block)
        block = block.replace("E<gt>", ">").replace("E<lt>", "<")
        paragraphs.append(" ".join(block.split()))
    return paragraphs


def read(path):
    opener = gzip.open if path.endswith((".gz", ".dz")) else open
    with opener(path, "rb") as file:
        return file.read().decode("utf-8", errors="replace").replace("\ufffd", "")


def files(folder, pattern):
    for root, folders, names in sorted(os.walk(folder)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            if re.search(pattern, path) and not os.path.islink(path):
                yield path


def entries(text, source):
    """A dictionary: entries begin where a line is not indented; hundred of them are a document."""
    text = re.sub(r"\[(1913 Webster|Webster 1913 Suppl\.|WordNet 1\.5|PJC|RP|R|Obs|RDH|AS|JDP)[^\]]*\]", "", text)
    text = re.sub(r"\{\s*([^{}]*)\}", lambda found: " ".join(found.group(1).split()), text)
    text = re.sub(r" \\[^\\\n]*\\,?", ",", text)  # pronunciations
    text = re.sub(r"^\s*\(\d{4}-\d\d-\d\d\)$", "", text, flags=re.M)
    whole = [of_plain(entry) for entry in re.split(r"\n(?=\S)", text)]
    for i in range(0, len(whole), 100):
        yield f"{source}/{i}", [paragraph for entry in whole[i : i + 100] for paragraph in entry]


def documents(packages):
    """(source, name, paragraphs)."""
    share = lambda package: os.path.join(packages, package, "usr/share")
    for page in files(share("anarchism"), r"html/(sec|append|intro|10years|quotes).*\.html$"):
        yield "anarchism", page, of_html(read(page))
    bible = re.split(r"\n(?=(?:[1-3] )?[A-Z][A-Za-z ]* \d+\n)", "\n" + read(os.path.join(packages, "bible.txt")))
    for chapter in bible:
        lines = re.sub(r"^\s*\d+ ", "\n\n", chapter, flags=re.M)
        yield "bible", chapter.strip().split("\n")[0], of_plain(lines)
    for page in files(share("debian-policy"), r"policy\.txt\.gz$|debian-reference\.en\.txt\.gz$"):
        yield "debian", page, of_plain(read(page))
    for page in files(share("debian-reference-en"), r"/ch\d+\.en\.html$"):
        yield "debian", page, of_html(read(page))
    for page in files(share("developers-reference"), r"_sources/.*\.rst\.txt$"):
        yield "debian", page, of_rst(read(page))
    for name in ("devil", "foldoc", "gcide", "jargon"):
        text = read(os.path.join(share("dict-" + name), f"dictd/{name}.dict.dz"))
        for title, paragraphs in entries(text, name):
            yield name, title, paragraphs
    for page in files(share("fortunes"), r"games/fortunes/[a-z-]+$"):
        sayings = [" ".join(saying.split()) for saying in read(page).split("\n%\n")]
        for i in range(0, len(sayings), 50):
            yield "fortunes", f"{page}/{i}", sayings[i : i + 50]
    for page in files(share("git-doc"), r"\.txt$"):
        if "RelNotes" not in page:
            yield "git", page, of_asciidoc(read(page))
    for page in files(share("perl-doc"), r"\.pod$"):
        if not re.search(r"perl(toc|api|uniprops|intern|ebcdic)\.pod$", page):
            yield "perl", page, of_pod(read(page))
    for page in files(share("postgresql-doc-15"), r"html/(?!bookindex|release|errcodes).*\.html$"):
        yield "postgresql", page, of_html(read(page))
    for page in files(share("python3.11-doc"), r"_sources/(tutorial|library|howto|faq|reference|using|whatsnew/\d).*\.txt$"):
        yield "python", page, of_rst(read(page))


def is_prose(paragraph):
    letters = sum(c.isalpha() or c == " " for c in paragraph)
    return len(paragraph) >= 25 and letters > 0.8 * len(paragraph)


def part_of(name):
    number = int(hashlib.sha256(("part " + name).encode()).hexdigest(), 16) % 1000
    for part, share in PARTS.items():
        if number < share:
            return part
        number -= share
    return "train"


def write(out, train_bytes):
    packages = os.path.join(out, "packages")
    parts = {part: [] for part in [*PARTS, "train"]}
    seen, sizes = set(), {}
    for source, name, paragraphs in documents(packages):
        size = sizes.setdefault(source, {"documents": 0, "bytes": 0})
        if size["bytes"] > LIMITS.get(source, 100) * MEGABYTE:
            continue
        kept = []
        for paragraph in paragraphs:
            key = hashlib.sha256(re.sub(r"\W+", " ", paragraph.lower()).encode()).digest()
            if is_prose(paragraph) and key not in seen:
                seen.add(key)
                kept.append(paragraph)
        text = "\n".join(kept)
        if len(text) < 200:
            continue
        name = name.replace(packages, "")
        parts[part_of(name)].append((hashlib.sha256(name.encode()).hexdigest(), source, text))
        size["documents"] += 1
        size["bytes"] += len(text.encode())
    # In the order of their digests, so that the beginning of a part has something of every source.
    for part, found in parts.items():
        found.sort()
        if part == "train":
            sizes_so_far = itertools.accumulate(len(text.encode()) for _, _, text in found)
            found[:] = [document for document, size in zip(found, sizes_so_far) if size <= train_bytes]
        with open(os.path.join(out, part + ".jsonl"), "w") as file:
            for _, source, text in found:
                file.write(json.dumps({"text": text, "source": source}) + "\n")
    with open(os.path.join(out, "train.txt"), "w") as plain:  # what the vocabulary is learned from
        plain.write("\n".join(text for _, _, text in parts["train"]))
    versions = sorted(name[:-4] for name in os.listdir(packages) if name.endswith(".deb"))
    with open(os.path.join(out, "corpus.json"), "w") as file:
        json.dump({"packages": versions, "sources": sizes}, file, indent=1)


def count(out):
    path = os.path.join(out, "corpus.json")
    with open(path) as file:
        corpus = json.load(file)
    corpus["parts"] = {}
    for part in ["train", *PARTS]:
        num_bytes = num_documents = 0
        with open(os.path.join(out, part + ".jsonl")) as file:
            for line in file:
                num_documents += 1
                num_bytes += len(json.loads(line)["text"].encode())
        num_tokens = os.path.getsize(os.path.join(out, part + "_text_document.bin")) // 2
        corpus["parts"][part] = {"documents": num_documents, "bytes": num_bytes, "tokens": num_tokens}
    with open(path, "w") as file:
        json.dump(corpus, file, indent=1)
    for part, size in corpus["parts"].items():
        print(f"{part:6} {size['documents']:6} documents {size['bytes']:10} bytes {size['tokens']:9} tokens")


if __name__ == "__main__":
    count(sys.argv[1]) if "--count" in sys.argv else write(sys.argv[1], float(sys.argv[2]) * MEGABYTE)
