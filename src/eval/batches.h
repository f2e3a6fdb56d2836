#pragma once
// How a task's items are divided into batches: a function of the task and the options alone, so that neither the number
// of ranks nor an interruption changes what is computed together.

#include <cstdint>
#include <vector>

#include "eval/task.h"

namespace farskip {

struct ItemBatch {
  size_t first = 0, num = 0;  ///< items
  int64_t num_tokens = 0;     ///< that are read
};

struct BatchLimits {
  int64_t batch_tokens = 4096;
  int64_t max_rows = 0;      ///< of logits in a step
  int64_t max_num_seqs = 0;  ///< answers
};

/// Each has at least one item.
std::vector<ItemBatch> make_batches(const EvalTask& task, const BatchLimits& limits);

}  // namespace farskip
