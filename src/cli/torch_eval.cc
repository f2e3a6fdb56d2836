// farskip eval DIR: what a model knows: perplexity of texts, nearness to another model, minimal pairs, questions with
// choices and with answers.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/text_tokens.h"
#include "cli/torch_model_options.h"
#include "config/checkpoint_folder.h"
#include "data/indexed_dataset.h"
#include "eval/evaluate.h"
#include "eval/metrics.h"
#include "model/fingerprint.h"
#include "train/launch.h"
#include "transport/rendezvous.h"

namespace farskip::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct EvalArguments {
  ModelArguments model;
  std::string against, layout, transport = "auto";
  std::vector<std::string> texts, pairs, choices, answers;
  TextTaskOptions text{.window = 0, .stride = 0};
  int64_t max_tokens = 0;
  SetOptions set;
  EvalOptions options;
  int num_ranks = 0;
  double timeout_s = 300;
};

constexpr int64_t default_window = 1024;

/// NAME=FILE, or FILE, whose name without its ending is taken.
std::pair<std::string, std::string> name_and_file(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals != std::string::npos && equals > 0 && argument.find('/') > equals && !fs::exists(argument)) {
    return {argument.substr(0, equals), argument.substr(equals + 1)};
  }
  return {fs::path(argument).stem().string(), argument};
}

/// Prepared data where `file` is the prefix of such, else a text.
std::vector<int32_t> tokens_of(const std::string& file, const TaskText& text, const std::string& folder,
                               const ModelConfig& config, int64_t max_tokens) {
  const int64_t limit = max_tokens > 0 ? max_tokens : std::numeric_limits<int64_t>::max();
  const fs::path path(file);
  const bool part = path.extension() == ".idx" || path.extension() == ".bin";
  if (fs::exists(index_path(part ? fs::path(path).replace_extension().string() : file))) {
    return text_tokens(file, folder, config, limit);
  }
  std::vector<int32_t> tokens = text.encode(read_file(file));
  tokens.resize(std::min<size_t>(tokens.size(), static_cast<size_t>(limit)));
  return tokens;
}

std::vector<EvalTask> read_tasks(const EvalArguments& arguments, const std::string& folder, const ModelConfig& config,
                                 const TaskText& text) {
  const int64_t positions = config.max_position_embeddings;
  SetOptions set = arguments.set;
  set.max_positions = positions > 0 ? positions : std::numeric_limits<int32_t>::max();
  TextTaskOptions options = arguments.text;
  if (options.window == 0) options.window = std::min(default_window, set.max_positions);
  if (options.window > set.max_positions) {
    fail("--window {}: the model has {} positions; choose at most so many", options.window, positions);
  }
  std::vector<EvalTask> tasks;
  for (const auto& argument : arguments.texts) {
    const auto [name, file] = name_and_file(argument);
    const auto tokens = tokens_of(file, text, folder, config, arguments.max_tokens);
    tasks.push_back(text_task(name, file, tokens, text, config.vocab_size, options));
  }
  using Read = EvalTask (*)(const std::string&, const std::string&, const TaskText&, const SetOptions&);
  const auto read_sets = [&](const std::vector<std::string>& list, Read read) {
    for (const auto& argument : list) {
      const auto [name, file] = name_and_file(argument);
      tasks.push_back(read(name, file, text, set));
    }
  };
  read_sets(arguments.pairs, pairs_task);
  read_sets(arguments.choices, choices_task);
  read_sets(arguments.answers, answers_task);
  return tasks;
}

void check_arguments(const EvalArguments& arguments) {
  if (arguments.texts.empty() && arguments.pairs.empty() && arguments.choices.empty() && arguments.answers.empty()) {
    fail("nothing to evaluate: give --text, --pairs, --choices or --answers FILE");
  }
  if (!arguments.against.empty() && arguments.texts.empty()) {
    fail("--against compares what two models say of texts; give --text FILE");
  }
  const bool choices = !arguments.choices.empty(), answers = !arguments.answers.empty();
  if (!arguments.set.fewshot.empty() && choices == answers) {
    fail("--fewshot holds questions of one form; give it with either --choices or --answers");
  }
}

json describe(const std::string& folder, const ModelConfig& config, const ModelArguments& arguments) {
  const int64_t layers = config.num_layers();
  const Connectivity connectivity = arguments.connectivity.empty()
                                        ? Connectivity::from_config(config.raw, layers)
                                        : Connectivity::parse(arguments.connectivity, layers);
  return {{"fingerprint", checkpoint_fingerprint(folder)},
          {"connectivity", connectivity.to_string()},
          {"dtype", arguments.dtype.empty() ? "config" : arguments.dtype},
          {"quantization", arguments.quantization},
          {"batch_invariant", arguments.batch_invariant}};
}

/// The other model as it is, under its own connectivity.
ModelArguments other_model(const EvalArguments& arguments) {
  ModelArguments other;
  other.model = arguments.against;
  other.dtype = arguments.model.dtype;
  other.batch_invariant = arguments.model.batch_invariant;
  return other;
}

void check_same_vocabulary(const std::string& folder, const ModelConfig& config, const std::string& other,
                           const TaskText& text) {
  const ModelConfig other_config = load_model_config(other);
  if (config.vocab_size != other_config.vocab_size) {
    fail("{} has a vocabulary of {}, {} one of {}: their predictions cannot be compared", folder, config.vocab_size,
         other, other_config.vocab_size);
  }
  if (!has_tokenizer(other)) return;
  const auto tokenizer = load_tokenizer(other);
  if (TaskText(tokenizer.get()).vocabulary_digest() != text.vocabulary_digest()) {
    fail("{} and {} have different tokenizers ({}): their predictions cannot be compared", folder, other,
         tokenizer->description());
  }
}

void show(const json& results, const std::string& output) {
  std::printf("%s", render_text(metrics_table(results.at("tasks"))).c_str());
  if (!output.empty()) std::printf("results: %s\n", output.c_str());
  std::fflush(stdout);
}

void run_eval(const EvalArguments& arguments) {
  keep_freed_memory();
  check_arguments(arguments);
  LaunchOptions launch;
  launch.timeout_s = arguments.timeout_s;
  launch.transport = transport_of(arguments.transport);
  const Layout layout =
      layout_of_ranks(arguments.layout, arguments.num_ranks, launch, [](int ranks) { return Layout{.dp = ranks}; });
  const std::string folder = resolve_model_folder(arguments.model.model);
  const ModelConfig config = load_model_config(folder);
  const ModelText words(folder, arguments.model.tokenizer, config);
  const TaskText text(words.tokenizer());
  const std::vector<EvalTask> tasks = read_tasks(arguments, folder, config, text);
  json models = {{"model", describe(folder, config, arguments.model)}};
  const ModelArguments other = other_model(arguments);
  if (!other.model.empty()) {
    const std::string other_folder = resolve_model_folder(other.model);
    check_same_vocabulary(folder, config, other_folder, text);
    models["against"] = describe(other_folder, load_model_config(other_folder), other);
  }
  const json head = evaluation_head(models, tasks, arguments.options);
  const std::string& samples = arguments.options.samples;
  const json there = finished_results(head, arguments.options);
  if (!there.is_null() && (samples.empty() || fs::exists(samples))) {
    if (detect_launch().rank == 0) show(there, arguments.options.output);
    return;
  }
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const int rank = context.world.rank();
    const InferenceModel model = load_model(arguments.model, layout, rank);
    std::optional<InferenceModel> against;
    if (!other.model.empty()) against.emplace(load_model(other, layout, rank));
    EvalOptions options = arguments.options;
    options.stop_tokens = all_end_tokens(model, words);
    const json results = evaluate(model, against ? &*against : nullptr, tasks, text, head, context.world, options);
    if (rank == 0) show(results, options.output);
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

void add_task_options(CLI::App& command, EvalArguments& arguments) {
  const auto files = [&](const char* name, std::vector<std::string>& list, const char* help) {
    command.add_option(name, list, help)->expected(1)->take_all()->type_name("[NAME=]FILE");
  };
  files("--text", arguments.texts, "Perplexity; a text or data of `farskip prepare`; several times");
  files("--pairs", arguments.pairs, "Minimal pairs, BLiMP's JSONL: sentence_good, sentence_bad, UID");
  files("--choices", arguments.choices, "Multiple choice by log-probability, JSONL: query, choices, gold");
  files("--answers", arguments.answers, "Greedy answers, exact match, GSM8K's JSONL: question, answer");
  command.add_option("--against", arguments.against,
                     "Another checkpoint of the same vocabulary: KL, top-1 agreement, router drift");
  command
      .add_option("--window", arguments.text.window, "Texts: tokens that a prediction looks back on (default: 1024)")
      ->check(CLI::PositiveNumber);
  command.add_option("--stride", arguments.text.stride, "Texts: tokens scored by a window (default: all of it)")
      ->check(CLI::PositiveNumber);
  command.add_option("--max-tokens", arguments.max_tokens, "Texts: from the beginning of each (default: all)")
      ->check(CLI::PositiveNumber);
  SetOptions& set = arguments.set;
  command.add_option("--limit", set.limit, "The first N lines of each JSONL file (default: all)")
      ->check(CLI::PositiveNumber);
  command.add_option("--fewshot", set.fewshot, "JSONL whose questions stand with their answers before each question");
  command.add_option("--num-fewshot", set.num_fewshot, "So many of them")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--max-new-tokens", set.max_new_tokens, "Of an answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--stop", set.stops, "Text that ends an answer; several times (default: \"Question:\")")
      ->expected(1)
      ->take_all();
}

}  // namespace

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "Evaluate a model on texts, pairs, choices and questions");
  add_model_options(*command, arguments->model);
  add_task_options(*command, *arguments);
  EvalOptions& options = arguments->options;
  command->add_option("-o,--output", options.output,
                      "JSON file of the results; an interrupted run goes on from FILE.partial");
  command->add_flag("--overwrite", options.overwrite, "Begin anew, whatever -o names");
  command->add_option("--samples", options.samples, "JSONL file of each item's scores and answers");
  command->add_option("--batch-tokens", options.batch_tokens, "Tokens read in a step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--max-num-seqs", options.max_num_seqs, "Answers that are made together")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--nproc", arguments->num_ranks, "Ranks, each with batches of its own (default: one, or --layout)")
      ->check(CLI::PositiveNumber);
  command->add_option("--layout", arguments->layout, "How a model is spread: tp=N, ep=N, dp=N (see farskip show)");
  command->add_option("--transport", arguments->transport, "auto: ranks are threads, or a launcher's processes")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "loopback", "gloo", "nccl"}));
  command->add_option("--timeout", arguments->timeout_s, "Seconds without a rank before the run fails")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([arguments] { run_eval(*arguments); });
}

}  // namespace farskip::cli
