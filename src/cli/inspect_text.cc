#include "cli/inspect_text.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/progress.h"
#include "cli/show_summary.h"
#include "layer/export_config.h"
#include "sim/exposure.h"
#include "sim/memory.h"
#include "sim/search.h"
#include "trace/drawing.h"
#include "trace/overlap.h"

namespace farskip::cli {
namespace {

/// A training step with one sequence in a microbatch.
Workload one_sequence(const ModelConfig& model, double bytes_per_value) {
  Workload load;
  load.sequences = 1;
  load.seq_length = static_cast<double>(std::min<int64_t>(4096, std::max<int64_t>(1, model.max_position_embeddings)));
  load.bytes_per_value = bytes_per_value;
  return load;
}

std::string bytes_text(double bytes) { return format_bytes(static_cast<int64_t>(bytes)); }

MemoryPlan plan(const StageGraph& graph, const ModelConfig& model, double bytes_per_value) {
  return plan_memory(graph, reference_schedule(graph), model, one_sequence(model, bytes_per_value));
}

Table memory_table(const Inspected& inspected) {
  const ModelConfig& model = inspected.model;
  Table table{
      {"a rank of", "weights bf16", "weights fp32", "training bf16", "training fp32", "activations bf16"}, {}, ""};
  for (int ep = 1; ep <= std::min<int64_t>(64, model.num_experts); ep *= 2) {
    if (model.num_experts % ep != 0) break;
    const StageGraph graph = build_graph(model, inspected.connectivity, {Phase::train, {.ep = ep}, 1, Scope::step});
    const MemoryPlan bf16 = plan(graph, model, 2), fp32 = plan(graph, model, 4);
    table.rows.push_back({fmt::format("ep={}", ep), bytes_text(bf16.weights), bytes_text(fp32.weights),
                          bytes_text(bf16.total() - bf16.activations), bytes_text(fp32.total() - fp32.activations),
                          bytes_text(bf16.activations)});
  }
  table.note = fmt::format(
      "Training: weights, fp32 masters, gradients and AdamW's moments. Activations come on top: at the peak of a step\n"
      "with one sequence of {:g} tokens. `farskip train --dry-run` tells of a recipe.",
      one_sequence(model, 2).seq_length);
  return table;
}

/// "attn_core", "qkv of layer 7", "shared wgrad": a compute stage, seen from a collective.
std::string stage_seen_from(const Span& collective, const Span& stage) {
  const auto layer_of = [](const std::string& name) {  // mb0.l6.fwd.qkv
    const size_t begin = name.find(".l");
    return begin == std::string::npos ? "" : name.substr(begin + 2, name.find('.', begin + 2) - begin - 2);
  };
  std::string text = stage.stage;
  if (stage.pass != collective.pass) text += " " + stage.pass;
  const std::string layer = layer_of(stage.name);
  if (layer != layer_of(collective.name)) text += layer.empty() ? "" : " of layer " + layer;
  return text;
}

Table hiding_table(const Shown& shown, const Timeline& timeline, int layer) {
  Table table{{"collective", "pass", "takes", "exposed", "behind"}, {}, ""};
  const auto timings = measure_overlap(timeline, exposure_hint(shown.graph, shown.costs));
  for (const Span& span : timeline.spans) {
    if (span.kind != SpanKind::collective || !span.name.starts_with(fmt::format("mb0.l{}.", layer))) continue;
    const auto timing = std::find_if(timings.begin(), timings.end(), [&](auto& t) { return t.name == span.name; });
    std::vector<std::string> behind;
    for (const Span& other : timeline.spans) {
      const double together = std::min(span.end_us, other.end_us) - std::max(span.begin_us, other.begin_us);
      if (other.kind == SpanKind::compute && together > 0) behind.push_back(stage_seen_from(span, other));
    }
    table.rows.push_back({span.stage, span.pass, format_us(span.end_us - span.begin_us),
                          timing == timings.end() ? "" : format_us(timing->exposed_us),
                          behind.empty() ? "nothing" : fmt::format("{}", fmt::join(behind, ", "))});
  }
  return table;
}

Layout default_layout(const ModelConfig& model) {
  Layout layout;
  while (layout.ep < 8 && model.num_experts % (2 * layout.ep) == 0) layout.ep *= 2;
  return layout;
}

std::string hiding_text(const Inspected& inspected) {
  Shown shown;
  shown.name = inspected.name;
  shown.model = inspected.model;
  shown.connectivity = inspected.connectivity;
  shown.machine = machine(inspected.machine);
  shown.load = one_sequence(shown.model, 2);
  const Layout layout = inspected.layout.empty() ? default_layout(shown.model) : Layout::parse(inspected.layout);
  shown.graph = build_graph(shown.model, shown.connectivity, {Phase::train, layout, 1, Scope::step});
  shown.costs = model_costs(shown.graph, shown.model, shown.machine, shown.load);
  const int layer = middle_layer(shown.model, LayerKind::moe);
  if (layer < 0) return "";
  const Simulation simulation = simulate(shown.graph, named_schedule("paper", shown.graph, shown.costs), shown.costs);
  return fmt::format("Communication of layer {} in training, what it would be hidden behind ({}, {}, simulated)\n{}",
                     layer, layout.to_string(), shown.machine.name,
                     render_text(hiding_table(shown, simulation.timeline, layer)));
}

std::string names_text(const Inspected& inspected) {
  const nlohmann::json exported = export_config(inspected.model, inspected.connectivity);
  const auto& found = inspected.model.raw;
  if (!found.contains("architectures") || found["architectures"] == exported["architectures"]) return "";
  return fmt::format("  {0:<13} other tools take {1} for a standard model; `farskip convert` names it {2}\n", "note",
                     inspected.model.architecture, exported["architectures"][0].get<std::string>());
}

}  // namespace

std::string inspect_text(const Inspected& inspected) {
  const ModelConfig& m = inspected.model;
  std::string text = fmt::format("{} ({})\n", inspected.name, m.architecture);
  const auto line = [&](const char* what, const std::string& is) { text += fmt::format("  {:<13} {}\n", what, is); };
  line("parameters", fmt::format("{}, of which a token uses {}", parameters_text(m.num_parameters()),
                                 parameters_text(m.num_active_parameters())));
  line("layers", layers_text(m));
  line("connectivity", inspected.connectivity.to_string());
  text += names_text(inspected);
  text += "\n" + render_text(missing_table(inspected.connectivity));
  text += "\nMemory\n" + render_text(memory_table(inspected));
  return text + "\n" + hiding_text(inspected);
}

}  // namespace farskip::cli
