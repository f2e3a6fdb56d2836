#!/usr/bin/env python3
"""Trains a golden model (of a family and connectivity that transformers runs right) for 50 steps with transformers and
torch's own AdamW, and writes trajectory.safetensors into its folder: batches, losses, gradient norms and the norm of every
weight at the end, which farskip train must reproduce. Needs torch 2.13 and transformers 4.57.1.

    make_trajectory.py GOLDEN_CASE
"""
import math
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

STEPS, ROWS, LENGTH = 50, 8, 16
LR, MIN_LR, WARMUP, DECAY = 1e-3, 1e-4, 5, 50
BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0


def learning_rate(step):
    """Step counts from 1: linear warm-up, then cosine."""
    if step <= WARMUP:
        return LR * step / WARMUP
    ratio = (step - WARMUP) / (DECAY - WARMUP)
    return MIN_LR + 0.5 * (math.cos(math.pi * ratio) + 1) * (LR - MIN_LR)


def main(case):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(case, torch_dtype=torch.float32, attn_implementation="eager")
    model.train()
    vocab = model.config.vocab_size
    # Something that can be learned: each token decides the next one but for one in eight.
    follows = torch.randperm(vocab)
    tokens = torch.randint(vocab, (STEPS, ROWS, LENGTH + 1))
    for t in range(1, LENGTH + 1):
        keep = torch.rand(STEPS, ROWS) < 0.125
        tokens[:, :, t] = torch.where(keep, tokens[:, :, t], follows[tokens[:, :, t - 1]])
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": [p for _, p in named if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
         {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0}],
        lr=LR, betas=BETAS, eps=EPS)
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + 1)
        logits = model(input_ids=tokens[step, :, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[step, :, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP).item())
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, gradient norm {norms[0]:.3f} -> {norms[-1]:.3f}")
    final = {"final_norm." + n: p.detach().double().norm().reshape(1) for n, p in named}
    save_file({"tokens": tokens, "losses": torch.tensor(losses, dtype=torch.float64),
               "gradient_norms": torch.tensor(norms, dtype=torch.float64), **final}, case + "/trajectory.safetensors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
