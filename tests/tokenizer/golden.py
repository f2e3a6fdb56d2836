"""Small tokenizers of the families with the ids that Hugging Face's tokenizers gives them: golden.py TEXT FOLDER writes
NAME.json, tokenizers trained on the file TEXT, and cases.json."""

import base64
import json
import pathlib
import sys

from families import families
from texts import strings

text, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
training = text.read_text(errors="replace").split("\n")[:3000] + [t.decode("utf-8", "replace") for t in strings(300, seed=7)]
texts = [t for t in strings(330, seed=3) if len(t) < 400]
cases = {"texts": [base64.b64encode(t).decode() for t in texts], "tokenizers": {}}
for name, tokenizer in families(training, 330).items():
    document = json.loads(tokenizer.to_str())
    if name in ("qwen", "llama3"):  # the older spelling
        document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    (folder / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    ids = [tokenizer.encode(t.decode("utf-8", "replace"), add_special_tokens=False).ids for t in texts]
    cases["tokenizers"][name] = {
        "ids": [" ".join(map(str, row)) for row in ids[:150 if name != "gpt2" else None]],
        "special": tokenizer.encode("a b").ids,
        "decoded": [tokenizer.decode(row, skip_special_tokens=False) for row in ids[:20]],
    }
(folder / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")
