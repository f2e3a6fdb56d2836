// farskip convert IN OUT: a checkpoint in another dtype, in files of another size, or under another connectivity.

#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/text_tokens.h"
#include "cli/torch_calibrate.h"
#include "config/checkpoint_folder.h"
#include "infer/text_loss.h"
#include "layer/export_config.h"
#include "model/convert_checkpoint.h"

namespace farskip::cli {
namespace {

struct ConvertArguments {
  std::string in, out, text, shard_size = "5GB";
  std::string dtype, connectivity;
  CalibrateArguments calibrate;
};

/// "5GB", "500MB", "2GiB", "100000": bytes.
uint64_t parse_size(const std::string& text) {
  static const std::map<std::string, double> units = {{"", 1},       {"B", 1},         {"KB", 1e3},
                                                      {"MB", 1e6},   {"GB", 1e9},      {"TB", 1e12},
                                                      {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
  size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const auto unit = units.find(text.substr(end));
  const double bytes = unit == units.end() ? 0 : number * unit->second;
  if (end == 0 || !(bytes >= 1) || bytes > 1e18) {
    throw CLI::ValidationError("--shard-size", fmt::format("'{}' is no size like 5GB, 500MB or 2GiB", text));
  }
  return static_cast<uint64_t>(bytes);
}

at::ScalarType parse_dtype(const std::string& name) {
  static const std::map<std::string, at::ScalarType> dtypes = {
      {"bf16", at::kBFloat16}, {"fp16", at::kHalf}, {"fp32", at::kFloat}};
  return dtypes.at(name);
}

std::string size_text(uint64_t bytes) { return format_bytes(static_cast<int64_t>(bytes)); }

void tell(const ConvertArguments& arguments, const ConvertReport& report) {
  std::printf("%s: %lld tensors, %s (read %s)\n", arguments.out.c_str(), static_cast<long long>(report.num_tensors),
              size_text(report.bytes_written).c_str(), size_text(report.bytes_read).c_str());
  std::printf("connectivity %s\n", report.to.to_string().c_str());
  if (!report.copied.empty()) std::printf("copied: %s\n", fmt::format("{}", fmt::join(report.copied, ", ")).c_str());
  if (!report.left_out.empty()) {
    std::printf("left behind: %s\n", fmt::format("{}", fmt::join(report.left_out, ", ")).c_str());
  }
}

/// What a change of connectivity without training means.
void tell_consequence(const ConvertArguments& arguments, const ConvertReport& report) {
  std::printf(
      "\nThe connectivity was changed from %s to %s. %s: unless the weights "
      "were\ntrained with %s in truth, this model is fluent but wrong until it has been trained or distilled:\n"
      "  farskip train RECIPE load=%s finetune=true\n",
      report.from.to_string().c_str(), report.to.to_string().c_str(),
      arguments.calibrate.text.empty() ? "No weight has changed, but the function has"
                                       : "Calibration has repaired a part of the damage only",
      report.to.to_string().c_str(), arguments.out.c_str());
}

void tell_losses(const ConvertArguments& arguments, const ConvertReport& report, const std::vector<int32_t>& tokens) {
  const auto losses = text_losses(arguments.out, {report.from, report.to}, tokens);
  const LossComparison compared = compare_losses(losses[0], losses[1]);
  std::printf("loss of %s (%lld tokens): %.4f with %s, %.4f with %s\n", arguments.text.c_str(),
              static_cast<long long>(compared.num_tokens), compared.first, report.from.to_string().c_str(),
              compared.second, report.to.to_string().c_str());
}

void write(const ConvertArguments& arguments, ConvertOptions options, const std::vector<int32_t>& tokens) {
  std::unique_ptr<Progress> progress;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    if (!progress) {
      progress = std::make_unique<Progress>(
          ProgressOptions{.what = "converting " + arguments.in, .total = static_cast<int64_t>(total)});
    }
    progress->update(static_cast<int64_t>(done));
  };
  const ConvertReport report = convert_checkpoint(arguments.in, arguments.out, options);
  progress.reset();
  tell(arguments, report);
  if (report.from != report.to) tell_consequence(arguments, report);
  if (!tokens.empty()) tell_losses(arguments, report, tokens);
}

void convert(const ConvertArguments& arguments) {
  ConvertOptions options;
  options.max_shard_bytes = parse_size(arguments.shard_size);
  if (!arguments.dtype.empty()) options.dtype = parse_dtype(arguments.dtype);
  if (!arguments.connectivity.empty()) options.connectivity = arguments.connectivity;
  std::vector<int32_t> tokens;  // read first: a text that cannot be used is no reason to convert in vain
  if (!arguments.text.empty()) {
    const std::string folder = resolve_model_folder(arguments.in);
    tokens = text_tokens(arguments.text, folder, load_model_config(folder), TextLossOptions{}.max_tokens);
  }
  if (arguments.calibrate.text.empty()) return write(arguments, options, tokens);
  check_not_there(arguments.out);
  if (arguments.connectivity.empty()) fail("--calibrate fits weights to another connectivity; give --connectivity");
  with_calibrated_tensors(arguments.in, arguments.connectivity, arguments.calibrate, arguments.out + ".calibrated",
                          [&](const ChangedTensors& changed) {
                            options.changed = changed;
                            write(arguments, options, tokens);
                          });
}

}  // namespace

void add_convert(CLI::App& app) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* command = app.add_subcommand("convert", "Write a checkpoint in another dtype, form or connectivity");
  command->add_option("in", arguments->in, "Hugging Face folder, or checkpoints of a run (the newest)")->required();
  command->add_option("out", arguments->out, "Folder to write; it must not exist")->required();
  command->add_option("--dtype", arguments->dtype, "Of the weights: bf16, fp16 or fp32 (default: as they are)")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}));
  command
      ->add_option("--shard-size", arguments->shard_size,
                   "Size of a file of weights at most: 5GB, 500MB, 2GiB; a larger tensor\nhas one of its own")
      ->capture_default_str();
  command->add_option("--connectivity", arguments->connectivity,
                      "Run the same weights under another connectivity (see `farskip show --help`)");
  add_calibrate_options(*command, arguments->calibrate);
  command->add_option("--text", arguments->text, std::string(text_help) + ":\nprint its loss before and after");
  command->footer(
      "Weights are read and written one by one, so memory is that of the largest. OUT appears when it is complete.\n"
      "Tokenizer and other small files are copied. Connectivities other than standard are exported under names of\n"
      "their own (FarSkip...ForCausalLM) with a modelling file, so that no tool runs the wrong graph.");
  command->callback([arguments] { convert(*arguments); });
}

}  // namespace farskip::cli
