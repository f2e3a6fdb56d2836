"""The other side of bench/tokenizer_speed.cc: encodes files with Hugging Face's tokenizers in one thread.

hf_tokenizer.py TOKENIZER_JSON. Each line of standard input is "whole FILE" or "lines FILE", a file of UTF-8 that is one text or
a text a line; the answer is "seconds ids checksum", the checksum being the sum of (place + 1) * id over the first million ids.
Lines go through encode_batch_fast, the package's fastest way.
"""

import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
for line in sys.stdin:
    mode, path = line.rstrip("\n").split(" ", 1)
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    texts = [text] if mode == "whole" else [part + "\n" for part in text.split("\n")[:-1]]
    start = time.perf_counter()
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds = time.perf_counter() - start
    ids = [id for encoding in encodings for id in encoding.ids]
    print(seconds, len(ids), sum((i + 1) * id for i, id in enumerate(ids[:1000000])), flush=True)
