// farskip inspect DIR|config.json: what a checkpoint is, whether its tensors are its model's, and, with a text, whether
// it was trained under the connectivity that it declares.

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/inspect_text.h"
#include "cli/text_tokens.h"
#include "config/checkpoint_folder.h"
#include "infer/text_loss.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "trace/table.h"

namespace farskip::cli {
namespace {

namespace fs = std::filesystem;

struct InspectArguments {
  std::string model, text;
  std::vector<std::string> quantizations;
  Inspected inspected;
  TextLossOptions loss;
};

bool has_weights(const std::string& folder) {
  return fs::exists(fs::path(folder) / safetensors_file_name) || fs::exists(fs::path(folder) / safetensors_index_name);
}

/// "BF16 (3,012 tensors, 29.3 GiB)" of each dtype.
std::string dtypes_text(const SafetensorsReader& reader) {
  std::map<std::string, std::pair<int64_t, uint64_t>> found;
  for (const auto& name : reader.names()) {
    const TensorSpec& spec = reader.spec(name);
    auto& [count, bytes] = found[std::string(safetensors_dtype(spec.dtype))];
    ++count;
    bytes += spec.num_bytes();
  }
  std::string text;
  for (const auto& [dtype, size] : found) {
    text += fmt::format("{}{} ({} tensors, {})", text.empty() ? "" : ", ", dtype, size.first,
                        format_bytes(static_cast<int64_t>(size.second)));
  }
  return text;
}

/// Whether they are the model's.
bool inspect_tensors(const std::string& folder, const ModelConfig& model) {
  const SafetensorsReader reader(folder);
  const TensorCheck check = check_tensors(reader, ParameterTable(model));
  print(fmt::format("\nTensors: {}\n", dtypes_text(reader)));
  if (!check.ignored.empty()) {
    print(fmt::format("  {} that the model does not use: {}{}\n", check.ignored.size(), check.ignored.front(),
                      check.ignored.size() > 1 ? ", ..." : ""));
  }
  print(check.ok() ? std::string("  all that config.json asks for, none missing, none unknown\n")
                   : check.to_string().substr(1) + "\n");
  return check.ok();
}

/// What 8 or 4 bits cost, in perplexity.
void compare_quantizations(const InspectArguments& arguments, const std::string& folder,
                           const std::vector<int32_t>& tokens, const std::vector<double>& plain) {
  Table table{{"weights", "loss", "perplexity", "difference", "standard error"}, {}, ""};
  for (const auto& kind : arguments.quantizations) {
    TextLossOptions options = arguments.loss;
    options.quantization = nn::parse_quantization(kind);
    const auto losses = text_losses(folder, {arguments.inspected.connectivity}, tokens, options)[0];
    const LossComparison compared = compare_losses(losses, plain);
    const double perplexity = std::exp(compared.first), before = std::exp(compared.second);
    if (table.rows.empty()) {
      table.rows.push_back(
          {"as they are", fmt::format("{:.4f}", compared.second), fmt::format("{:.4f}", before), "", ""});
    }
    table.rows.push_back({kind, fmt::format("{:.4f}", compared.first), fmt::format("{:.4f}", perplexity),
                          fmt::format("{:+.4f} ({:+.2f} %)", perplexity - before, 100 * (perplexity / before - 1)),
                          fmt::format("{:.4f}", compared.error * perplexity)});
  }
  print("\nQuantised weights\n" + render_text(table));
}

/// Throws Error where the text says that the weights belong to the other graph.
void inspect_losses(const InspectArguments& arguments, const std::string& folder) {
  const Connectivity& declared = arguments.inspected.connectivity;
  const Connectivity other = opposite(declared);
  const auto tokens = text_tokens(arguments.text, folder, arguments.inspected.model, arguments.loss.max_tokens);
  const auto losses = text_losses(folder, {declared, other}, tokens, arguments.loss);
  const LossComparison compared = compare_losses(losses[0], losses[1]);
  print(fmt::format("\nLoss of {} ({} tokens)\n  {:<20} {:.4f}  (declared)\n  {:<20} {:.4f}\n", arguments.text,
                    compared.num_tokens, declared.to_string(), compared.first, other.to_string(), compared.second));
  if (!compared.clear()) {
    print("Neither graph is clearly better: the weights may be untrained, or the text too short or too foreign.\n");
  } else if (compared.first_is_better()) {
    print(fmt::format("The weights were trained as declared: {}.\n", declared.to_string()));
  } else {
    fail(
        "{}: config.json declares {}, but the weights were trained with another graph: {} predicts the text better by "
        "{:.3f} nats a token (standard error {:.3f}). Declare what they were trained with: farskip convert {} OUT "
        "--connectivity {}",
        arguments.model, declared.to_string(), other.to_string(), compared.first - compared.second, compared.error,
        arguments.model, other.to_string());
  }
  if (!arguments.quantizations.empty()) compare_quantizations(arguments, folder, tokens, losses[0]);
}

void inspect(InspectArguments& arguments) {
  const std::string folder = resolve_model_folder(arguments.model);
  Inspected& inspected = arguments.inspected;
  inspected.name = arguments.model;
  inspected.model = load_model_config(folder);
  inspected.connectivity = Connectivity::from_config(inspected.model.raw, inspected.model.num_layers());
  print(inspect_text(inspected));
  if (!has_weights(folder)) {
    if (!arguments.text.empty()) fail("{}: holds no weights that could be run on a text", arguments.model);
    return;
  }
  if (!inspect_tensors(folder, inspected.model)) {
    fail("{}: its tensors do not fit the model of its config.json", arguments.model);
  }
  if (!arguments.text.empty()) inspect_losses(arguments, folder);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand("inspect", "Tell what a checkpoint is and which graph it was trained with");
  command
      ->add_option("model", arguments->model,
                   "Hugging Face folder, checkpoints of a run, a config.json, or the name of a preset")
      ->required();
  command->add_option(
      "--text", arguments->text,
      std::string(text_help) + ":\nits loss under the declared and the opposite connectivity; a mismatch is an error");
  command
      ->add_option("--quantization", arguments->quantizations,
                   "With --text: what weights in so many bits cost in perplexity; several times: each")
      ->check(CLI::IsMember({"int8", "int4"}))
      ->expected(1)
      ->take_all();
  command->add_option("--max-tokens", arguments->loss.max_tokens, "Of the text at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--window", arguments->loss.window, "Tokens the model sees at once")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 20).description(""));
  command->add_option("--layout", arguments->inspected.layout,
                      "Of the simulated run [ep=8, or what divides the experts]");
  command->add_option("--machine", arguments->inspected.machine, "What it is simulated on (see `farskip show --help`)")
      ->capture_default_str();
  command->footer("Exit status: 1 where tensors are missing, unknown or wrong, or the text tells of another graph.");
  command->callback([arguments] { inspect(*arguments); });
}

}  // namespace farskip::cli
