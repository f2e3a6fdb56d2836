// farskip generate DIR --prompt TEXT: continue prompts with a model, or talk with it.

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/torch_chat.h"
#include "cli/torch_model_options.h"
#include "infer/stop_text.h"

namespace farskip::cli {
namespace {

struct GenerateArguments {
  ModelArguments model;
  std::vector<std::string> prompts, stops;
  bool chat = false, ignore_eos = false, no_cache = false;
  std::string system;
  GenerateOptions options;
};

/// Prompts of one call grow together; one alone is shown as it comes.
void continue_prompts(const InferenceModel& model, const ModelText& text, const GenerateArguments& arguments,
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

void run_generate(const GenerateArguments& arguments) {
  keep_freed_memory();
  if (arguments.chat != arguments.prompts.empty()) fail("give --prompt TEXT (as often as you like) or --chat");
  const InferenceModel model = load_model(arguments.model);
  const ModelText text(model.folder(), arguments.model.tokenizer, model.config());
  GenerateOptions options = arguments.options;
  options.use_cache = !arguments.no_cache;
  if (!arguments.ignore_eos) options.stop_tokens = all_end_tokens(model, text);
  if (arguments.chat) {
    chat(model, text, {arguments.system, arguments.stops, options});
  } else {
    continue_prompts(model, text, arguments, options);
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  SamplingOptions& sampling = options.sampling;
  CLI::App* command = app.add_subcommand("generate", "Continue prompts with a model, or talk with it");
  add_model_options(*command, arguments->model);
  command->add_option("--prompt", arguments->prompts, "Text to continue; several times: all together")
      ->expected(1)
      ->take_all();
  command->add_flag("--chat", arguments->chat, "Talk with the model, by its chat template; lines from standard input");
  command->add_option("--system", arguments->system, "With --chat: what the conversation begins with");
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
  command->add_flag("--no-cache", arguments->no_cache, "Compute each token anew from all before it (for checks)");
  command->callback([arguments] { run_generate(*arguments); });
}

}  // namespace farskip::cli
