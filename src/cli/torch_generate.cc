// farskip generate DIR --prompt TEXT: continue prompts with a model, or talk with it.

#include <cstdio>
#include <memory>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/process_memory.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/torch_chat.h"
#include "infer/stop_text.h"

namespace farskip::cli {
namespace {

struct Arguments {
  std::string model, tokenizer, dtype, quantization = "none", connectivity;
  std::vector<std::string> prompts, stops;
  bool chat = false, ignore_eos = false, no_cache = false, batch_invariant = false;
  std::string system;
  GenerateOptions options;
};

InferenceModel load(const Arguments& arguments) {
  InferenceModelOptions options;
  if (arguments.dtype == "fp32") options.dtype = at::kFloat;
  if (arguments.dtype == "bf16") options.dtype = at::kBFloat16;
  options.quantization = nn::parse_quantization(arguments.quantization);
  options.batch_invariant = arguments.batch_invariant;
  if (!arguments.connectivity.empty()) options.connectivity = arguments.connectivity;
  std::optional<Progress> progress;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    if (!progress) progress.emplace(ProgressOptions{.what = "load", .total = static_cast<int64_t>(total)});
    progress->update(static_cast<int64_t>(done));
  };
  const double begin = monotonic_seconds();
  InferenceModel model(arguments.model, options);
  progress.reset();
  std::fprintf(stderr, "%s\n",
               fmt::format("{}: {} of weights, loaded in {}", model.folder(), format_bytes(model.weight_bytes()),
                           format_duration(monotonic_seconds() - begin))
                   .c_str());
  if (!model.unused().empty()) std::fprintf(stderr, "%s\n", model.unused().c_str());
  return model;
}

void print(const std::string& text) {
  std::printf("%s", text.c_str());
  std::fflush(stdout);
}

/// Prompts of one call grow together; one alone is shown as it comes.
void continue_prompts(const InferenceModel& model, const ModelText& text, const Arguments& arguments,
                      const GenerateOptions& options) {
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& prompt : arguments.prompts) prompts.push_back(text.encode(prompt, true));
  const bool alone = prompts.size() == 1;
  std::vector<std::function<std::string(int32_t)>> decoders;
  std::vector<StopText> stops(prompts.size(), StopText(arguments.stops));
  std::vector<std::string> results(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) decoders.push_back(text.decoder());
  const auto show = [&](size_t i, const std::string& piece) { alone ? print(piece) : void(results[i] += piece); };
  if (alone) print(arguments.prompts[0]);
  const GenerateReport report = generate(model, prompts, options, [&](size_t i, int32_t token) {
    show(i, stops[i].push(decoders[i](token)));
    return !stops[i].stopped();
  });
  for (size_t i = 0; i < prompts.size(); ++i) {
    show(i, stops[i].push(decoders[i](-1)));
    show(i, stops[i].finish());
    if (!alone)
      print(fmt::format("{}=== {} ({})\n{}{}\n", i ? "\n" : "", i, report.sequences[i].finish_reason,
                        arguments.prompts[i], results[i]));
  }
  if (alone) print("\n");
  std::fprintf(stderr, "%s\n", describe_speed(report).c_str());
}

void run(const Arguments& arguments) {
  keep_freed_memory();
  if (arguments.chat != arguments.prompts.empty()) fail("give --prompt TEXT (as often as you like) or --chat");
  const InferenceModel model = load(arguments);
  const ModelText text(model.folder(), arguments.tokenizer, model.config());
  GenerateOptions options = arguments.options;
  options.use_cache = !arguments.no_cache;
  if (!arguments.ignore_eos) {
    const auto own = end_tokens(model), vocabulary = text.end_tokens();
    std::set<int32_t> all(own.begin(), own.end());
    all.insert(vocabulary.begin(), vocabulary.end());
    options.stop_tokens.assign(all.begin(), all.end());
  }
  if (arguments.chat) {
    chat(model, text, {arguments.system, arguments.stops, options});
  } else {
    continue_prompts(model, text, arguments, options);
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  GenerateOptions& options = arguments->options;
  SamplingOptions& sampling = options.sampling;
  CLI::App* command = app.add_subcommand("generate", "Continue prompts with a model, or talk with it");
  command->add_option("model", arguments->model, "Hugging Face folder, or a run's checkpoints")->required();
  command->add_option("--prompt", arguments->prompts, "Text to continue; several times: all together")
      ->expected(1)
      ->take_all();
  command->add_flag("--chat", arguments->chat, "Talk with the model, by its chat template; lines from standard input");
  command->add_option("--system", arguments->system, "With --chat: what the conversation begins with");
  command->add_option("--tokenizer", arguments->tokenizer,
                      "A model's folder or a vocabulary (default: the model's own; without one: bytes)");
  command->add_option("--max-tokens", options.max_tokens, "Tokens to make at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--max-model-len", options.max_positions, "Positions of a sequence (default: as config.json says)")
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-k", sampling.top_k, "Only the K likeliest tokens; 0: all")->capture_default_str();
  command->add_option("--top-p", sampling.top_p, "Only the likeliest that together reach this probability")
      ->capture_default_str();
  command->add_option("--min-p", sampling.min_p, "Only tokens at least this times as likely as the likeliest")
      ->capture_default_str();
  command
      ->add_option("--repetition-penalty", sampling.repetition_penalty,
                   "Logits of tokens seen before are divided by this (below 0: multiplied)")
      ->capture_default_str();
  command->add_option("--presence-penalty", sampling.presence_penalty, "Subtracted from logits of tokens made before")
      ->capture_default_str();
  command->add_option("--frequency-penalty", sampling.frequency_penalty, "The same, for each time they were made")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "Of the random draws")->capture_default_str();
  command->add_option("--stop", arguments->stops, "Text that ends a sequence, not shown; several times: any of them")
      ->expected(1)
      ->take_all();
  command->add_flag("--ignore-eos", arguments->ignore_eos, "Go on after the token that ends a text");
  command->add_option("--dtype", arguments->dtype, "Of weights and activations (default: as config.json says)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--quantization", arguments->quantization, "Weights in 8 or 4 bits, made while loading")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  command->add_option("--connectivity", arguments->connectivity, "Another than the checkpoint's own");
  command->add_flag("--batch-invariant", arguments->batch_invariant,
                    "The same bits whatever other prompts are there, at some cost");
  command->add_flag("--no-cache", arguments->no_cache, "Compute each token anew from all before it (for checks)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace farskip::cli
