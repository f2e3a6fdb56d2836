#include "eval/evaluate.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "eval/gather.h"
#include "eval/task_run.h"

namespace farskip {
namespace {

using nlohmann::json;

constexpr int64_t max_logits = int64_t{1} << 28;  // in a step: 1 GiB

void check_vocabularies(const InferenceModel& model, const InferenceModel* against) {
  if (against && against->config().vocab_size != model.config().vocab_size) {
    fail("{} has a vocabulary of {}, {} one of {}: logits of different tokens cannot be compared", model.folder(),
         model.config().vocab_size, against->folder(), against->config().vocab_size);
  }
}

/// One task: which batches are done, and what came of them (on rank 0).
struct Work {
  std::vector<ItemBatch> batches;
  std::vector<bool> done;
  std::vector<ItemResult> results;  ///< per item
};

class Evaluation {
 public:
  Evaluation(const InferenceModel& model, const InferenceModel* against, const std::vector<EvalTask>& tasks,
             const TaskText& text, const json& head, World& world, const EvalOptions& options)
      : model_(model),
        against_(against),
        tasks_(tasks),
        text_(text),
        options_(options),
        communicators_(Communicators::make(world, model.layout())),
        all_(world.all("evaluation")) {
    const BatchLimits limits{options.batch_tokens, std::max<int64_t>(1, max_logits / model.config().vocab_size),
                             options.max_num_seqs};
    for (const EvalTask& task : tasks) {
      Work& work = work_[task.name];
      work.batches = make_batches(task, limits);
      work.done.resize(work.batches.size(), false);
      work.results.resize(task.items.size());
    }
    go_on(head);
  }

  json run(const json& head) {
    for (const EvalTask& task : tasks_) run_task(task, work_.at(task.name));
    if (!leads()) return nullptr;
    json result = {{"model", model_.folder()}, {"evaluation", head}, {"tasks", json::array()}};
    if (against_) result["against"] = against_->folder();
    const auto layers = TaskRun::drift_layers(model_.config(), against_ ? &against_->config() : nullptr);
    for (const EvalTask& task : tasks_) result["tasks"].push_back(summarize(task, work_.at(task.name).results, layers));
    if (!options_.samples.empty()) write_samples();
    if (journal_) journal_->finish(result.dump(1) + "\n");
    return result;
  }

 private:
  bool leads() const { return all_->rank() == 0; }

  /// Every rank learns what the journal says is done.
  void go_on(const json& head) {
    if (options_.output.empty()) return;
    std::string lines;
    if (leads()) {
      std::vector<json> there;
      if (!options_.overwrite) there = read_journal(options_.output, head);
      journal_.emplace(options_.output, head, there);
      lines = json(there).dump();
    }
    int64_t num = 0;
    for (const json& line : json::parse(gather_texts(*all_, lines)[0])) {
      take(line);
      ++num;
    }
    if (leads() && num > 0) log_info(fmt::format("{}{}: {} batches are done", options_.output, journal_suffix, num));
  }

  void take(const json& line) {
    Work& work = work_.at(line.at("task").get<std::string>());
    const auto batch = line.at("batch").get<size_t>();
    const json& results = line.at("results");
    if (batch >= work.batches.size() || results.size() != work.batches[batch].num) {
      fail("{}{}: damaged; remove it (or give --overwrite) to begin anew", options_.output, journal_suffix);
    }
    work.done[batch] = true;
    for (size_t i = 0; i < results.size(); ++i)
      work.results[work.batches[batch].first + i] = ItemResult::from_json(results[i]);
  }

  /// Round by round: each of those ranks that work together takes a batch.
  void run_task(const EvalTask& task, Work& work) {
    std::vector<size_t> pending;
    int64_t num_tokens = 0, num_items = 0;
    for (size_t b = 0; b < work.batches.size(); ++b) {
      if (work.done[b]) continue;
      pending.push_back(b);
      num_tokens += work.batches[b].num_tokens;
      num_items += static_cast<int64_t>(work.batches[b].num);
    }
    if (pending.empty()) return;
    const bool answers = task.kind == TaskKind::answers;
    Progress progress({.what = task.name,
                       .total = answers ? num_items : num_tokens,
                       .unit = answers ? "questions" : "tokens",
                       .out = leads() ? stderr : nullptr});
    int64_t done = 0;
    TaskRun run(task, work.batches, model_, against_, communicators_, text_, {.stop_tokens = options_.stop_tokens});
    const size_t together = static_cast<size_t>(model_.layout().tp);
    const size_t num_shares = static_cast<size_t>(all_->size()) / together;
    const size_t share = static_cast<size_t>(all_->rank()) / together;
    for (size_t i = 0; i < pending.size(); i += num_shares) {
      const bool has = i + share < pending.size();
      const std::vector<ItemResult> own = run.run(has ? &work.batches[pending[i + share]] : nullptr);
      std::string line;
      if (has && static_cast<size_t>(all_->rank()) % together == 0) {
        json results = json::array();
        for (const ItemResult& result : own) results.push_back(result.to_json());
        line = json{{"task", task.name}, {"batch", pending[i + share]}, {"results", results}}.dump();
      }
      for (const std::string& text : gather_texts(*all_, line)) {
        if (!leads() || text.empty()) continue;
        const json from = json::parse(text);
        take(from);
        const ItemBatch& batch = work.batches[from.at("batch").get<size_t>()];
        done += answers ? static_cast<int64_t>(batch.num) : batch.num_tokens;
        if (journal_) journal_->append(from);
      }
      progress.update(done);
    }
  }

  void write_samples() const {
    AtomicFile file(options_.samples);
    for (const EvalTask& task : tasks_) {
      const auto& results = work_.at(task.name).results;
      for (size_t i = 0; i < results.size(); ++i) {
        json line = {{"task", task.name}, {"item", i}, {"values", results[i].values}};
        if (task.kind == TaskKind::answers) line["text"] = results[i].text;
        file.write(line.dump() + "\n");
      }
    }
    file.commit();
  }

  const InferenceModel& model_;
  const InferenceModel* against_;
  const std::vector<EvalTask>& tasks_;
  const TaskText& text_;
  const EvalOptions& options_;
  Communicators communicators_;
  std::unique_ptr<Transport> all_;
  std::map<std::string, Work> work_;
  std::optional<Journal> journal_;
};

}  // namespace

json evaluation_head(const json& models, const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  json head = {{"format", 1},
               {"models", models},
               {"settings", {{"batch_tokens", options.batch_tokens}, {"max_num_seqs", options.max_num_seqs}}},
               {"tasks", json::object()}};
  for (const EvalTask& task : tasks) {
    if (head["tasks"].contains(task.name)) {
      fail("two tasks are called {}; give one of them another name: NAME=FILE", task.name);
    }
    head["tasks"][task.name] = {
        {"kind", to_string(task.kind)}, {"settings", task.settings}, {"data_sha256", task.digest()}};
  }
  return head;
}

json evaluate(const InferenceModel& model, const InferenceModel* against, const std::vector<EvalTask>& tasks,
              const TaskText& text, const json& head, World& world, const EvalOptions& options) {
  check_vocabularies(model, against);
  Evaluation evaluation(model, against, tasks, text, head, world, options);
  return evaluation.run(head);
}

json finished_results(const json& head, const EvalOptions& options) {
  if (options.output.empty() || options.overwrite || !std::filesystem::exists(options.output)) return nullptr;
  json results = json::parse(read_file(options.output), nullptr, false);
  if (!results.is_object() || !results.contains("evaluation") || !results.contains("tasks")) {
    fail("{}: is no evaluation's results; give another -o, or --overwrite", options.output);
  }
  check_same_evaluation(options.output, results.at("evaluation"), head);
  return results;
}

}  // namespace farskip
