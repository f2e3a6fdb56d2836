"""Generates with transformers: the other side of bench/generate_speed.cc, which starts this program.

It reads lines on standard input. "generate N": reads the prompt, makes N tokens greedily, and answers with
"prefill-ms decode-ms token token ..." in one line. "logits K": writes the logits of every K-th position of the prompt to
--logits as fp32, and answers with their number.

Settings that are tried for "transformers at its best": SDPA attention; experts as the library runs them by default (a
loop over experts), by torch's grouped product ("grouped_mm", transformers 5) and batched ("batched_mm"); its cache that
grows, or with --compile a static one with the decoding step compiled. The loop is written out here: generate() of the
library does more.
"""

import argparse
import os
import sys
import time

import torch
import transformers


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True, help="int64 file, the prompt")
    parser.add_argument("--logits", required=True)
    parser.add_argument("--max-positions", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), required=True)
    parser.add_argument("--experts", choices=("eager", "grouped_mm", "batched_mm"), required=True)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    options = {"attn_implementation": "sdpa",
               "dtype": torch.bfloat16 if arguments.dtype == "bf16" else torch.float32}
    if int(transformers.__version__.split(".")[0]) >= 5:
        options["experts_implementation"] = arguments.experts
    elif arguments.experts != "eager":
        sys.exit(f"transformers {transformers.__version__} knows no experts_implementation")
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, **options).eval()
    prompt = torch.from_file(arguments.tokens, dtype=torch.int64, size=os.path.getsize(arguments.tokens) // 8)[None]
    decode = torch.compile(model.forward) if arguments.compile else model.forward
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            command, num = line.split()
            num = int(num)
            if command == "logits":
                logits = model.forward(input_ids=prompt).logits[0, num - 1::num].float()
                logits.numpy().tofile(arguments.logits)
                print(logits.shape[0], flush=True)
                continue
            begin = time.perf_counter()
            cache = (transformers.StaticCache(config=model.config, max_cache_len=arguments.max_positions)
                     if arguments.compile else transformers.DynamicCache(config=model.config))
            logits = model.forward(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = [logits[0, -1].argmax()]
            prefill = time.perf_counter()
            for i in range(num - 1):
                position = torch.tensor([prompt.shape[1] + i])
                logits = decode(input_ids=tokens[-1].view(1, 1), past_key_values=cache, use_cache=True,
                                cache_position=position, logits_to_keep=1).logits
                tokens.append(logits[0, -1].argmax())
            end = time.perf_counter()
            print((prefill - begin) * 1e3, (end - prefill) * 1e3, *[t.item() for t in tokens], flush=True)


if __name__ == "__main__":
    main()
