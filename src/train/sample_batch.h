#pragma once
// From samples to the batch that stages compute on.

#include <vector>

#include "model/stage_math.h"
#include "train/sample_reader.h"

namespace farskip {

/// Rows of `seq_length` tokens, with documents, positions and a teacher's targets where the samples have them.
/// `num_sequences`: those of the whole step, over all ranks and microbatches. No samples make a batch of no rows.
Batch sample_batch(const std::vector<TrainSample>& samples, int64_t seq_length, double num_sequences,
                   const at::Device& device);

}  // namespace farskip
