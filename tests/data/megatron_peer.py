#!/usr/bin/env python3
"""The other side of the indexed format: megatron-core itself (numpy, torch and `pip install --no-deps megatron-core`).

  megatron_peer.py write FOLDER DTYPE...   writes FOLDER/DTYPE.bin and .idx of tokens_of() with megatron-core's builder
  megatron_peer.py check FOLDER DTYPE...   reads FOLDER/DTYPE with megatron-core and compares it with tokens_of()
  megatron_peer.py split N:TEXT...         prints the bounds of the parts that megatron-core cuts N sequences into
  megatron_peer.py blend N:WEIGHTS...      prints data set and sample of each of N samples blended with these weights
  megatron_peer.py exhaust SIZES...        the same for data sets of these sizes, each used up
  megatron_peer.py masks EOD:TOKENS...     prints loss mask and positions with all reset options, and where attention
                                           begins for each position

Exit status 0 where everything agrees. tests/data/megatron_peer_test.cc has the same tokens_of() in C++.
"""
import os
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy  # noqa: E402
import torch  # noqa: E402
from megatron.core.datasets.blended_megatron_dataset_config import (  # noqa: E402
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)
from megatron.core.datasets import helpers_cpp  # noqa: E402
from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids  # noqa: E402
from megatron.core.datasets.utils import normalize  # noqa: E402
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder  # noqa: E402

NUM_DOCUMENTS = 50


def tokens_of(document, sequence):
    """Documents of one to three sequences, one of them empty; values that fit every integer type."""
    length = (document * 7 + sequence * 5) % 23
    return [(document * 31 + sequence * 17 + i * 13) % 120 for i in range(length)]


def sequences_in(document):
    return 1 + document % 3


def write(prefix, dtype):
    builder = IndexedDatasetBuilder(prefix + ".bin", dtype=getattr(numpy, dtype))
    for document in range(NUM_DOCUMENTS):
        for sequence in range(sequences_in(document)):
            builder.add_item(torch.tensor(tokens_of(document, sequence), dtype=torch.int64))
        builder.end_document()
    builder.finalize(prefix + ".idx")


def check(prefix, dtype):
    for mmap in (True, False):
        data = IndexedDataset(prefix, multimodal=False, mmap=mmap)
        assert data.index.dtype == getattr(numpy, dtype), data.index.dtype
        bounds = [0]
        for document in range(NUM_DOCUMENTS):
            bounds.append(bounds[-1] + sequences_in(document))
            for sequence in range(sequences_in(document)):
                got = data[bounds[document] + sequence]
                assert got.tolist() == tokens_of(document, sequence), (document, sequence, got)
        assert len(data) == bounds[-1], len(data)
        assert data.document_indices.tolist() == bounds, data.document_indices


def split(num_sequences, text):
    # As BlendedMegatronDatasetBuilder rounds them; a part without a share is left out there, "0 0" here.
    for share in convert_split_vector_to_split_matrix(parse_and_normalize_split(text)):
        begin, end = share if share is not None else (0, 0)
        print(int(round(begin * float(num_sequences))), int(round(end * float(num_sequences))))


def print_blend(datasets, samples):
    print(*(f"{d} {s}" for d, s in zip(datasets, samples)))


def blend(num_samples, text):
    # Twice, as in training: the builder does it, and BlendedDataset again.
    weights = normalize(normalize([float(weight) for weight in text.split(",")]))
    datasets, samples = numpy.zeros(num_samples, dtype=numpy.int16), numpy.zeros(num_samples, dtype=numpy.int64)
    helpers_cpp.build_blending_indices(
        datasets, samples, numpy.array(weights, dtype=numpy.float64), len(weights), num_samples, False)
    print_blend(datasets, samples)


def exhaust(text):
    sizes = numpy.array([int(size) for size in text.split(",")], dtype=numpy.int64)
    datasets, samples = numpy.zeros(sizes.sum(), dtype=numpy.int16), numpy.zeros(sizes.sum(), dtype=numpy.int64)
    helpers_cpp.build_exhaustive_blending_indices(datasets, samples, sizes, len(sizes))
    print_blend(datasets, samples)


def masks(eod, text):
    tokens = torch.tensor([int(token) for token in text.split(",")])
    attention, loss, positions = _get_ltor_masks_and_position_ids(tokens[:-1], eod, True, True, True, True)
    seen = ~attention[0]  # True where it may look
    print(*(int(x) for x in loss), *positions.tolist(), *seen.int().argmax(dim=1).tolist())


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "split":
        for argument in arguments:
            num_sequences, text = argument.split(":")
            split(int(num_sequences), text)
    elif command in ("blend", "masks"):
        for argument in arguments:
            number, text = argument.split(":")
            {"blend": blend, "masks": masks}[command](int(number), text)
    elif command == "exhaust":
        for argument in arguments:
            exhaust(argument)
    else:
        folder, *dtypes = arguments
        for dtype in dtypes:
            {"write": write, "check": check}[command](os.path.join(folder, dtype), dtype)
