"""Renderings of transformers: chat_golden.py FOLDER OUT. FOLDER holds NAME.jinja, the templates of the models; OUT takes, for
each, its fingerprint and what apply_chat_template gives for every conversation with and without a generation prompt, or null
where it refuses. The templates themselves are not stored."""

import hashlib
import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

from conversations import CONVERSATIONS


def fingerprint(text):
    return hashlib.sha256(text.replace("\r\n", "\n").removesuffix("\n").replace("\\n", "\n").encode()).hexdigest()


tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<BOS>", eos_token="<EOS>")
templates = []
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
    tokenizer.chat_template = path.read_text()
    rendered = []
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            try:
                rendered.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
            except Exception as error:
                rendered.append(None)
    templates.append({"name": path.stem, "fingerprint": fingerprint(path.read_text()), "rendered": rendered})
golden = {"bos_token": "<BOS>", "eos_token": "<EOS>", "conversations": CONVERSATIONS, "templates": templates}
pathlib.Path(sys.argv[2]).write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
