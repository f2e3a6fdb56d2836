// farskip show MODEL: a model's stages, orders of them, and what these are worth on a machine, without running it.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "cli/command.h"
#include "cli/show_summary.h"
#include "schedule/text.h"
#include "sim/search.h"
#include "trace/render.h"

namespace farskip::cli {
namespace {

struct ShowOptions {
  std::string model;
  std::string layout = "ep=8,dp=1";
  std::string phase = "train";
  std::optional<std::string> connectivity;
  std::string schedule = "search";
  std::string machine = "mi325x";
  std::optional<int64_t> sequences, seq_length;
  int microbatches = 1;
  double skew = 1;
  std::string format = "summary";
  std::string output;
};

/// Breaks a long line for --help, which leaves 84 columns to descriptions.
std::string wrapped(const std::string& text) {
  constexpr size_t width = 80;
  std::string lines, line;
  for (size_t at = 0; at < text.size();) {
    const size_t space = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, space - at);
    if (!line.empty() && line.size() + 1 + word.size() > width) lines += std::exchange(line, "") + "\n";
    line += (line.empty() ? "" : " ") + word;
    at = space + 1;
  }
  return lines + line;
}

Workload workload_of(const ShowOptions& options, Phase phase, const ModelConfig& model) {
  Workload load;
  load.decode = phase == Phase::decode;
  load.sequences = static_cast<double>(options.sequences.value_or(load.decode ? 64 : 8));
  const int64_t longest = model.max_position_embeddings > 0 ? model.max_position_embeddings : INT64_MAX;
  const int64_t seq_length = options.seq_length.value_or(std::min<int64_t>(4096, longest));
  if (seq_length > longest) {
    fail("sequences of {} are longer than the {} positions of {}", seq_length, longest, options.model);
  }
  load.seq_length = static_cast<double>(seq_length);
  load.skew = options.skew;
  return load;
}

Shown describe(const ShowOptions& options) {
  Shown shown;
  shown.name = options.model;
  shown.model = load_model_config(options.model);
  shown.connectivity = options.connectivity ? Connectivity::parse(*options.connectivity, shown.model.num_layers())
                                            : Connectivity::from_config(shown.model.raw, shown.model.num_layers());
  const Phase phase = parse_phase(options.phase);
  shown.machine = machine(options.machine);
  shown.load = workload_of(options, phase, shown.model);
  shown.graph = build_graph(shown.model, shown.connectivity,
                            {phase, Layout::parse(options.layout), options.microbatches, Scope::step});
  shown.costs = model_costs(shown.graph, shown.model, shown.machine, shown.load);
  return shown;
}

SimulatedSchedule simulated(const Shown& shown, const std::string& name) {
  Schedule schedule = named_schedule(name, shown.graph, shown.costs);
  Simulation simulation = simulate(shown.graph, schedule, shown.costs);
  return {std::move(schedule), std::move(simulation)};
}

std::string summary(const Shown& shown, const std::string& chosen) {
  std::vector<std::string> names = {"reference", "async", "paper", "search"};
  if (shown.graph.options().num_microbatches > 1) {
    names.push_back("two-batch");
    if (shown.graph.options().scope != Scope::forward) names.push_back("1f1b");
  }
  if (std::find(names.begin(), names.end(), chosen) == names.end()) names.push_back(chosen);
  std::vector<SimulatedSchedule> schedules;
  for (const auto& name : names) schedules.push_back(simulated(shown, name));
  return summary_text(shown, schedules, std::find(names.begin(), names.end(), chosen) - names.begin());
}

/// The columns that let a stage of a middle layer be seen in a timeline of the whole step are too many for a page.
constexpr int text_columns = 200;

std::string rendered(const ShowOptions& options) {
  const Shown shown = describe(options);
  if (options.format == "summary") return summary(shown, options.schedule);
  if (options.format == "graph") return graph_text(shown);
  const SimulatedSchedule one = simulated(shown, options.schedule);
  if (options.format == "schedule") return to_text(shown.graph, one.schedule);
  Timeline timeline = one.simulation.timeline;
  timeline.title = fmt::format("{}, {}, {} on {}: {}", shown.name, shown.connectivity.to_string(), options.phase,
                               shown.machine.name, one.schedule.name);
  if (options.format == "svg") return render_svg({timeline});
  if (options.format == "chrome") return render_chrome({timeline});
  return render_text(timeline, text_columns);
}

std::string machine_help() {
  std::string text = "What it is simulated on:";
  for (const Machine& m : machines()) text += fmt::format("\n{} - {}", m.name, m.description);
  text += "\nFILE.json - figures of your own (docs/machines.md)";
  return text;
}

}  // namespace

void add_show(CLI::App& app) {
  auto o = std::make_shared<ShowOptions>();
  CLI::App* command =
      app.add_subcommand("show", "Print a model's stages and simulate orders of them, or draw one (nothing is run)");
  command->add_option("model", o->model, "Folder with a config.json, such a file, or the name of a preset")->required();
  command->add_option("--layout", o->layout, "Ranks, as in ep=8,dp=2; in inference tp=8 or ep=8[,exchange=a2a]")
      ->capture_default_str();
  command->add_option("--phase", o->phase, "train, prefill or decode")->capture_default_str();
  command->add_option(
      "--connectivity", o->connectivity,
      wrapped("What readers miss, instead of what the config.json says: " + std::string(Connectivity::help())));
  command->add_option("--schedule", o->schedule, wrapped(schedule_help()))->capture_default_str();
  command->add_option("--machine", o->machine, machine_help())->capture_default_str();
  auto in_range = [](auto min, auto max) { return CLI::Range(min, max).description(""); };  // keeps --help short
  const auto count = in_range(int64_t{1}, int64_t{1} << 30);
  command->add_option("--sequences", o->sequences, "In a microbatch of a rank [8; decode 64]")->check(count);
  command->add_option("--seq-length", o->seq_length, "Tokens of each; in decode positions cached [4096]")->check(count);
  command->add_option("--microbatches", o->microbatches, "Of a step, at most 64")
      ->capture_default_str()
      ->check(in_range(1, 64));
  command->add_option("--skew", o->skew, "Rows of the busiest rank over the mean")
      ->capture_default_str()
      ->check(in_range(1.0, 1000.0));
  command
      ->add_option("--format", o->format,
                   "summary; graph: every node with what it reads and writes; schedule: the\n"
                   "order as --schedule reads it; text, svg, chrome: timeline of the whole step")
      ->capture_default_str()
      ->check(CLI::IsMember({"summary", "graph", "schedule", "text", "svg", "chrome"}));
  command->add_option("-o,--output", o->output, "File to write instead of standard output");
  command->callback([o] {
    const std::string text = rendered(*o);
    if (o->output.empty()) {
      std::fwrite(text.data(), 1, text.size(), stdout);
    } else {
      write_file(o->output, text);
    }
  });
}

}  // namespace farskip::cli
