#include "eval/task_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/greedy.h"
#include "eval/task_file.h"
#include "schedule/hand_orders.h"

namespace farskip {
namespace {

/// What the largest batch needs of a cache.
struct Room {
  int64_t pages = 1, positions = 1;  ///< positions: of a sequence
};

Room room_for(const EvalTask& task, const std::vector<ItemBatch>& batches) {
  Room room;
  for (const ItemBatch& batch : batches) {
    int64_t pages = 0;
    for (size_t i = batch.first; i < batch.first + batch.num; ++i) {
      const EvalItem& item = task.items[i];
      for (const ScoredSequence& sequence : item.scored) {
        pages += pages_of(sequence.num_inputs());
        room.positions = std::max(room.positions, sequence.num_inputs());
      }
      if (item.prompt.empty()) continue;
      const int64_t length = std::ssize(item.prompt) + task.max_new_tokens;
      pages += pages_of(length);
      room.positions = std::max(room.positions, length);
    }
    room.pages = std::max(room.pages, pages);
  }
  return room;
}

void check_finite(const EvalTask& task, const std::vector<ItemResult>& results, size_t first) {
  for (size_t i = 0; i < results.size(); ++i) {
    for (const double value : results[i].values) {
      if (!std::isfinite(value))
        fail("{}: item {}: the model's logits are not finite; its weights are damaged", task.name, first + i);
    }
  }
}

}  // namespace

std::vector<int64_t> TaskRun::drift_layers(const ModelConfig& model, const ModelConfig* against) {
  std::vector<int64_t> layers;
  if (!against || against->layers != model.layers || against->num_experts != model.num_experts ||
      against->top_k != model.top_k) {
    return layers;
  }
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    if (model.layers[layer] == LayerKind::moe) layers.push_back(layer);
  }
  return layers;
}

TaskRun::TaskRun(const EvalTask& task, const std::vector<ItemBatch>& batches, const InferenceModel& model,
                 const InferenceModel* against, const Communicators& communicators, const TaskText& text,
                 TaskRunOptions options)
    : task_(task), model_(model), communicators_(communicators), text_(text), options_(std::move(options)) {
  const Room room = room_for(task, batches);
  if (task.kind == TaskKind::answers) {
    DecoderOptions decoder;
    decoder.max_positions = room.positions;
    decoder.cache_positions = room.pages * page_positions;
    decoder_ = std::make_unique<Decoder>(model, communicators, decoder);
    if (model.layout().expert_group() > 1) decoder_->set_schedule(paper_schedule(decoder_->graph()));
    return;
  }
  const bool compares = against && task.kind == TaskKind::text;
  if (compares) drift_layers_ = drift_layers(model.config(), &against->config());
  const bool experts = !drift_layers_.empty();
  scorer_ = std::make_unique<Scorer>(model, communicators, room.pages, room.positions, experts);
  if (compares) against_ = std::make_unique<Scorer>(*against, communicators, room.pages, room.positions, experts);
}

std::vector<ItemResult> TaskRun::run(const ItemBatch* batch) {
  std::vector<ItemResult> results = task_.kind == TaskKind::answers ? answer(batch) : score(batch);
  if (batch) check_finite(task_, results, batch->first);
  return results;
}

std::vector<ItemResult> TaskRun::score(const ItemBatch* batch) {
  std::vector<const ScoredSequence*> sequences;
  std::vector<int32_t> targets;
  for (size_t i = 0; batch && i < batch->num; ++i) {
    for (const ScoredSequence& sequence : task_.items[batch->first + i].scored) {
      sequences.push_back(&sequence);
      targets.insert(targets.end(), sequence.tokens.begin() + sequence.first, sequence.tokens.end());
    }
  }
  const at::Tensor logits = scorer_->logits(sequences);
  if (against_) {
    const at::Tensor others = against_->logits(sequences);
    return batch ? compare(*batch, logits, others, targets) : std::vector<ItemResult>{};
  }
  std::vector<ItemResult> results;
  if (!batch) return results;
  const std::vector<double> logprobs = target_logprobs(logits, targets);
  size_t row = 0;
  for (size_t i = 0; i < batch->num; ++i) {
    ItemResult& result = results.emplace_back();
    for (const ScoredSequence& sequence : task_.items[batch->first + i].scored) {
      double sum = 0;
      for (int64_t n = sequence.num_scored(); n > 0; --n) sum += logprobs[row++];
      if (task_.kind == TaskKind::text) {
        result.values = {static_cast<double>(sequence.num_scored()), -sum};
      } else {
        result.values.push_back(sum);
      }
    }
  }
  return results;
}

std::vector<ItemResult> TaskRun::compare(const ItemBatch& batch, const at::Tensor& logits, const at::Tensor& others,
                                         const std::vector<int32_t>& targets) const {
  const LogitComparison rows = compare_logits(logits, others, targets);
  std::vector<at::Tensor> differs;  // per layer [rows]
  for (const int64_t layer : drift_layers_) {
    const at::Tensor same = scorer_->experts().at(layer) == against_->experts().at(layer);
    differs.push_back(same.all(1).logical_not().to(at::kLong).to(at::kCPU));
  }
  std::vector<ItemResult> results;
  int64_t begin = 0;
  for (size_t i = 0; i < batch.num; ++i) {
    const int64_t num = task_.items[batch.first + i].scored.front().num_scored();
    double nats = 0, other_nats = 0, kl = 0, agree = 0;
    for (int64_t row = begin; row < begin + num; ++row) {
      nats -= rows.logprobs[row];
      other_nats -= rows.against_logprobs[row];
      kl += rows.kl[row];
      agree += rows.agree[row] ? 1 : 0;
    }
    ItemResult& result = results.emplace_back();
    result.values = {static_cast<double>(num), nats, other_nats, kl, agree};
    for (const at::Tensor& layer : differs)
      result.values.push_back(static_cast<double>(layer.narrow(0, begin, num).sum().item<int64_t>()));
    begin += num;
  }
  return results;
}

std::vector<ItemResult> TaskRun::answer(const ItemBatch* batch) {
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; batch && i < batch->num; ++i) prompts.push_back(task_.items[batch->first + i].prompt);
  const auto first_stop = [&](const std::string& text) {
    size_t first = std::string::npos;
    for (const std::string& stop : task_.stops) first = std::min(first, text.find(stop));
    return first;
  };
  GreedyOptions greedy;
  greedy.max_new_tokens = task_.max_new_tokens;
  greedy.stop_tokens = options_.stop_tokens;
  greedy.stops = [&](size_t, const std::vector<int32_t>& tokens) {
    return first_stop(text_.decode(tokens)) != std::string::npos;
  };
  const auto made = continue_greedily(*decoder_, model_, communicators_, prompts, greedy);
  std::vector<ItemResult> results;
  for (size_t i = 0; i < made.size(); ++i) {
    const EvalItem& item = task_.items[batch->first + i];
    const std::string text = text_.decode(made[i]);
    ItemResult& result = results.emplace_back();
    result.text = text.substr(0, first_stop(text));
    const std::string said = item.marked ? strict_answer(result.text) : plain_answer(result.text);
    const bool last = last_number(result.text) == last_number(item.answer) && !last_number(item.answer).empty();
    result.values = {said == item.answer ? 1.0 : 0.0, last ? 1.0 : 0.0, static_cast<double>(made[i].size())};
  }
  return results;
}

}  // namespace farskip
