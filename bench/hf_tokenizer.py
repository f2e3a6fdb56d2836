"""The other side of bench/tokenizer_speed.cc: encodes files with Hugging Face's tokenizers in one thread.

hf_tokenizer.py TOKENIZER_JSON. Each line of standard input names a file of UTF-8; the answer is "seconds ids checksum", the
checksum being the sum of (place + 1) * id over the first million ids.
"""

import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
for line in sys.stdin:
    with open(line.rstrip("\n"), encoding="utf-8") as file:
        text = file.read()
    start = time.perf_counter()
    encoding = tokenizer.encode(text, add_special_tokens=False)
    seconds = time.perf_counter() - start
    ids = encoding.ids
    print(seconds, len(ids), sum((i + 1) * id for i, id in enumerate(ids[:1000000])), flush=True)
