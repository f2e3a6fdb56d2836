#include "cli/torch_model_options.h"

#include <cstdio>
#include <optional>
#include <set>

#include "base/progress.h"
#include "infer/generate.h"

namespace farskip::cli {

void add_model_options(CLI::App& command, ModelArguments& arguments) {
  command.add_option("model", arguments.model, "Hugging Face folder, or a run's checkpoints")->required();
  command.add_option("--tokenizer", arguments.tokenizer,
                     "A model's folder or a vocabulary (default: the model's own; without one: bytes)");
  command.add_option("--dtype", arguments.dtype, "Of weights and activations (default: as config.json says)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command.add_option("--quantization", arguments.quantization, "Weights in 8 or 4 bits, made while loading")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  command.add_option("--connectivity", arguments.connectivity, "Another than the checkpoint's own");
  command.add_flag("--batch-invariant", arguments.batch_invariant, "The same bits whatever other prompts are there");
}

InferenceModel load_model(const ModelArguments& arguments, const Layout& layout, int rank) {
  InferenceModelOptions options;
  if (arguments.dtype == "fp32") options.dtype = at::kFloat;
  if (arguments.dtype == "bf16") options.dtype = at::kBFloat16;
  options.quantization = nn::parse_quantization(arguments.quantization);
  options.batch_invariant = arguments.batch_invariant;
  if (!arguments.connectivity.empty()) options.connectivity = arguments.connectivity;
  options.layout = layout;
  options.rank = rank;
  std::optional<Progress> progress;
  if (rank == 0) {
    options.on_progress = [&](uint64_t done, uint64_t total) {
      if (!progress) progress.emplace(ProgressOptions{.what = "load", .total = static_cast<int64_t>(total)});
      progress->update(static_cast<int64_t>(done));
    };
  }
  const double begin = monotonic_seconds();
  InferenceModel model(arguments.model, options);
  progress.reset();
  if (rank != 0) return model;
  std::fprintf(stderr, "%s\n",
               fmt::format("{}: {} of weights{}, loaded in {}", model.folder(), format_bytes(model.weight_bytes()),
                           layout.world() > 1 ? " on this rank" : "", format_duration(monotonic_seconds() - begin))
                   .c_str());
  if (!model.unused().empty()) std::fprintf(stderr, "%s\n", model.unused().c_str());
  return model;
}

std::vector<int32_t> all_end_tokens(const InferenceModel& model, const ModelText& text) {
  const auto own = end_tokens(model), vocabulary = text.end_tokens();
  std::set<int32_t> all(own.begin(), own.end());
  all.insert(vocabulary.begin(), vocabulary.end());
  return {all.begin(), all.end()};
}

}  // namespace farskip::cli
