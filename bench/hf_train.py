"""Trains a Hugging Face folder with transformers: the other side of bench/train_speed.cc, which starts this program.

It reads commands on standard input and answers each with one line on standard output:
  train N   trains on the next N batches; answers "loss ms" of each, in one line
What cannot be had (a library too old, a compiler missing) ends the program with the reason on standard error.

Settings that are tried for "transformers at its best": experts as the library runs them by default (a loop over
experts), by torch's grouped product (experts_implementation="grouped_mm", transformers 5) and batched ("batched_mm");
SDPA attention; torch.compile; AdamW fused. `--dtype bf16` holds everything in bf16, moments included, as
from_pretrained(dtype=bfloat16) gives it: less work than mixed precision. `--dtype mixed` keeps fp32 weights and
computes under autocast.
"""

import argparse
import inspect
import os
import sys
import time

import torch
import transformers


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--tokens", required=True, help="int64 file [batches, batch, seq + 1]")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "mixed"), required=True)
    parser.add_argument("--experts", choices=("eager", "grouped_mm", "batched_mm"), required=True)
    parser.add_argument("--compile", action="store_true")
    for name in ("lr", "beta1", "beta2", "eps", "decay", "clip"):
        parser.add_argument("--" + name, type=float, required=True)
    return parser.parse_args()


def load(arguments):
    transformers.utils.logging.disable_progress_bar()
    major = int(transformers.__version__.split(".")[0])
    options = {"attn_implementation": "sdpa"}
    options["dtype"] = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    if major >= 5:
        options["experts_implementation"] = arguments.experts
    elif arguments.experts != "eager":
        sys.exit(f"transformers {transformers.__version__} knows no experts_implementation")
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, **options)
    model.config.use_cache = False
    model.train()
    return model


def make_optimizer(model, arguments):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": arguments.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=arguments.lr, betas=(arguments.beta1, arguments.beta2), eps=arguments.eps,
                             fused=True)


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tokens = torch.from_file(arguments.tokens, dtype=torch.int64, size=os.path.getsize(arguments.tokens) // 8)
    tokens = tokens.view(-1, arguments.batch, arguments.seq + 1)
    model = load(arguments)
    optimizer = make_optimizer(model, arguments)
    run = torch.compile(model) if arguments.compile else model
    extra = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    position = 0

    def step():
        nonlocal position
        batch = tokens[position % tokens.shape[0]]
        position += 1
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "mixed"):
            logits = run(input_ids=batch[:, :-1], **extra).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return value, (time.perf_counter() - begin) * 1e3

    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word != "train":
            sys.exit(f"unknown command: {line}")
        print(" ".join(f"{loss!r} {ms!r}" for loss, ms in (step() for _ in range(int(number)))), flush=True)


if __name__ == "__main__":
    main()
