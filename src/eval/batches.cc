#include "eval/batches.h"

#include <algorithm>

namespace farskip {
namespace {

constexpr int64_t tokens_a_sequence = 8;  // shorter ones count as much: each takes a page of the cache

struct Size {
  int64_t tokens = 0, room = 0, rows = 0;
};

Size size_of(const EvalItem& item) {
  Size size{std::ssize(item.prompt), std::ssize(item.prompt), 0};
  for (const ScoredSequence& sequence : item.scored) {
    size.tokens += sequence.num_inputs();
    size.room += std::max(sequence.num_inputs(), tokens_a_sequence);
    size.rows += sequence.num_scored();
  }
  return size;
}

}  // namespace

std::vector<ItemBatch> make_batches(const EvalTask& task, const BatchLimits& limits) {
  const bool answers = task.kind == TaskKind::answers;
  std::vector<ItemBatch> batches;
  int64_t room = 0, rows = 0;
  for (size_t i = 0; i < task.items.size(); ++i) {
    const Size size = size_of(task.items[i]);
    const bool full =
        batches.empty() || (answers ? static_cast<int64_t>(batches.back().num) >= limits.max_num_seqs
                                    : room + size.room > limits.batch_tokens || rows + size.rows > limits.max_rows);
    if (full) {
      batches.push_back({i, 0, 0});
      room = rows = 0;
    }
    ++batches.back().num;
    batches.back().num_tokens += size.tokens;
    room += size.room;
    rows += size.rows;
  }
  return batches;
}

}  // namespace farskip
