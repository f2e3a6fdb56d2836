#include "cli/show_summary.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "config/flops.h"
#include "sim/exposure.h"
#include "trace/drawing.h"
#include "trace/overlap.h"
#include "trace/render.h"
#include "trace/table.h"

namespace farskip::cli {
namespace {

constexpr int timeline_columns = 110;

std::string us(double time) { return format_us(time); }
std::string percent(const OverlapRow& row) {
  return row.duration_us > 0 ? fmt::format("{:.1f} %", 100 * row.hidden()) : "-";
}
std::string counted(int64_t n, const char* one, const char* many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

/// "mb0.l3.attn" -> "attn" for values and nodes of the layer itself; others keep their layer.
std::string short_name(std::string name, int layer) {
  for (const std::string& prefix : {std::string("mb0."), fmt::format("l{}.", layer)}) {
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
  }
  return name;
}

std::string model_lines(const Shown& shown) {
  const ModelConfig& m = shown.model;
  const Layout& layout = shown.graph.options().layout;
  const Phase phase = shown.graph.options().phase;
  constexpr const char* exchanges[] = {"all-to-all", "all-reduce", "gather and reduce-scatter"};
  const auto num_collectives = std::count_if(shown.graph.nodes().begin(), shown.graph.nodes().end(),
                                             [](const Node& node) { return node.is_collective(); });
  std::string text = fmt::format("{} ({})\n", shown.name, m.architecture);
  auto line = [&](const char* what, const std::string& is) { text += fmt::format("  {:<13} {}\n", what, is); };
  line("parameters", fmt::format("{}, of which a token uses {}", parameters_text(m.num_parameters()),
                                 parameters_text(m.num_active_parameters())));
  line("layers", layers_text(m));
  line("connectivity", shown.connectivity.to_string());
  line("run",
       fmt::format("{}, layout {} ({}, {}), {} of {:g} x {} a rank", to_string(phase), layout.to_string(),
                   counted(layout.world(), "rank", "ranks"), exchanges[static_cast<size_t>(layout.exchange(phase))],
                   counted(shown.graph.options().num_microbatches, "microbatch", "microbatches"), shown.load.sequences,
                   shown.load.decode ? fmt::format("1 token behind {:g}", shown.load.seq_length)
                                     : fmt::format("{:g} tokens", shown.load.seq_length)));
  line("graph", fmt::format("{} nodes, {} of them collectives; {} values", shown.graph.num_nodes(), num_collectives,
                            shown.graph.num_values()));
  line("machine", fmt::format("{}: {}", shown.machine.name, shown.machine.description));
  return text;
}

std::string missing(const char* what, int count, int first) {
  if (count <= 0) return "";
  if (count == 1)
    return first == 0 ? fmt::format("{} of this layer", what) : fmt::format("{} of the layer before", what);
  return first == 0 ? fmt::format("{} of this layer and the {} before", what, count - 1)
                    : fmt::format("{} of the {} layers before", what, count);
}

/// The forward stages of one layer, with the time of each pass.
Table stage_table_of(const Shown& shown, int layer) {
  const StageGraph& graph = shown.graph;
  const bool train = graph.options().scope != Scope::forward;
  Table table{{"stage", "lane", "forward", "backward", "weight grad", "reads", "writes"}, {}, ""};
  auto time = [&](Pass pass, Stage stage) {
    const NodeId id = graph.find(0, layer, pass, stage);
    return id == no_node ? std::string() : us(shown.costs.us[id]);
  };
  auto names = [&](const std::vector<ValueId>& values) {
    std::vector<std::string> list;
    for (ValueId v : values) list.push_back(short_name(graph.value(v).name, layer));
    return fmt::format("{}", fmt::join(list, " "));
  };
  for (const Node& node : graph.nodes()) {
    if (node.layer != layer || node.microbatch != 0 || node.pass != Pass::forward) continue;
    table.rows.push_back({std::string(to_string(node.stage)), lane_name(node), time(Pass::forward, node.stage),
                          time(Pass::backward, node.stage), time(Pass::wgrad, node.stage), names(node.reads),
                          names(node.writes)});
  }
  if (!train) {
    for (auto& row : table.rows) row.erase(row.begin() + 3, row.begin() + 5);
    table.columns.erase(table.columns.begin() + 3, table.columns.begin() + 5);
  }
  return table;
}

OverlapSummary overlap_of(const Shown& shown, const SimulatedSchedule& one, const ExposureHint& hint) {
  const bool off = one.schedule.name == "reference";
  return summarize(
      measure_overlap(one.simulation.timeline,
                      off ? ExposureHint([](const CollectiveTiming&) { return Exposure::not_enabled; }) : hint));
}

Table schedule_table(const Shown& shown, const std::vector<SimulatedSchedule>& schedules, const ExposureHint& hint) {
  Table table{{"schedule", "step", "speed-up", "exposed", "hidden", "forward", "backward"}, {}, ""};
  double best = schedules.front().simulation.step_us;
  for (const auto& one : schedules) {
    const OverlapSummary overlap = overlap_of(shown, one, hint);
    table.rows.push_back({one.schedule.name, us(one.simulation.step_us),
                          fmt::format("{:.3f}", schedules.front().simulation.step_us / one.simulation.step_us),
                          us(one.simulation.exposed_us), percent(overlap.total), percent(overlap.forward),
                          percent(overlap.backward)});
    best = std::min(best, one.simulation.step_us);
  }
  table.note = fmt::format(
      "Speed-up over the reference order of the same graph; hidden: share of communication under which the compute "
      "lane "
      "did not wait.\nThe best found takes {}; no order takes less than {}, the busier of the compute lane and the "
      "links.",
      us(best), us(lane_bound_us(shown.graph, shown.costs)));
  return table;
}

/// What happens from the first stage of `layer` in a pass until the first stage of the layer that follows.
std::string layer_timeline(const Shown& shown, const Timeline& timeline, int layer, Pass pass) {
  const int next = pass == Pass::forward ? layer + 1 : layer - 1;
  auto begin_of = [&](int k) {
    const std::string prefix = fmt::format("mb0.l{}.{}.", k, to_string(pass));
    for (const Span& span : timeline.spans) {
      if (span.kind == SpanKind::compute && span.name.starts_with(prefix)) return span.begin_us;
    }
    return -1.0;
  };
  const double from = begin_of(layer), to = begin_of(next);
  if (from < 0 || to <= from) return "";
  Timeline part{fmt::format("{}, layer {} {}", timeline.title, layer, pass == Pass::forward ? "forward" : "backward"),
                {}};
  for (Span span : timeline.spans) {
    span.begin_us = std::max(span.begin_us, from);
    span.end_us = std::min(span.end_us, to);
    if (span.begin_us < span.end_us) part.spans.push_back(std::move(span));
  }
  return render_text(part, timeline_columns) + "\n";
}

}  // namespace

std::string parameters_text(int64_t count) {
  const double value = static_cast<double>(count);
  return count >= 1'000'000'000 ? fmt::format("{:.1f} B", value / 1e9) : fmt::format("{:.2f} M", value / 1e6);
}

std::string layers_text(const ModelConfig& model) {
  const int64_t num_moe = std::count(model.layers.begin(), model.layers.end(), LayerKind::moe);
  std::string text = fmt::format("{}: ", model.num_layers());
  if (num_moe < model.num_layers()) text += fmt::format("{} dense, ", model.num_layers() - num_moe);
  return text + fmt::format("{} MoE with {} experts, {} for each token, {} shared experts", num_moe, model.num_experts,
                            model.top_k, model.has_shared() ? "and" : "no");
}

Table missing_table(const Connectivity& connectivity) {
  Table table{{"reader", "layers", "its input misses"}, {}, ""};
  const auto& c = connectivity;
  for (int64_t first = 0, next; first < c.num_layers(); first = next) {
    for (next = first + 1; next < c.num_layers() && c.layer(next) == c.layer(first);) ++next;
    const Skip& skip = c.layer(first);
    const std::string layers = next - first == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, next - 1);
    const std::string attention = missing("routed experts", skip.attention_routed, 1);
    const std::string routed = missing("routed experts", skip.ff_routed, 1);
    const std::string own = missing("attention", skip.ff_attention + 1, 0);
    auto or_nothing = [](const std::string& text) { return text.empty() ? std::string("nothing") : text; };
    table.rows.push_back({"attention", layers, or_nothing(attention)});
    table.rows.push_back(
        {"feed-forward", layers, or_nothing(routed + (routed.empty() || own.empty() ? "" : "; ") + own)});
  }
  return table;
}

int middle_layer(const ModelConfig& model, LayerKind kind) {
  std::vector<int> layers;
  for (int k = 0; k < static_cast<int>(model.num_layers()); ++k) {
    if (model.layers[k] == kind) layers.push_back(k);
  }
  return layers.empty() ? -1 : layers[layers.size() / 2];
}

std::string summary_text(const Shown& shown, const std::vector<SimulatedSchedule>& schedules, size_t chosen) {
  const int dense = middle_layer(shown.model, LayerKind::dense), moe = middle_layer(shown.model, LayerKind::moe);
  const ExposureHint hint = exposure_hint(shown.graph, shown.costs);
  const SimulatedSchedule& picked = schedules[chosen];
  std::string text = model_lines(shown) + "\n";
  text += describe_flops(shown.model, static_cast<int64_t>(shown.load.seq_length)) + "\n";
  text += render_text(missing_table(shown.connectivity)) + "\n";
  for (int layer : {dense, moe}) {
    if (layer < 0) continue;
    text += fmt::format("Stages of a {} layer (layer {})\n{}\n", layer == dense ? "dense" : "MoE", layer,
                        render_text(stage_table_of(shown, layer)));
  }
  text += fmt::format("Orders of these stages, simulated\n{}\n", render_text(schedule_table(shown, schedules, hint)));
  text +=
      fmt::format("Communication under '{}'\n{}\n", picked.schedule.name, render_text(overlap_of(shown, picked, hint)));
  const int layer = moe >= 0 ? moe : dense;
  text += layer_timeline(shown, picked.simulation.timeline, layer, Pass::forward);
  text += layer_timeline(shown, picked.simulation.timeline, layer, Pass::backward);
  text.pop_back();
  return text;
}

std::string graph_text(const Shown& shown) {
  std::string text;
  const StageGraph& graph = shown.graph;
  auto names = [&](const std::vector<ValueId>& values) {
    std::vector<std::string> list;
    for (ValueId v : values) list.push_back(graph.value(v).name);
    return fmt::format("{}", fmt::join(list, " "));
  };
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    text += fmt::format("{} on {} ({})\n  reads {}\n  writes {}\n", graph.name(id), lane_name(node),
                        us(shown.costs.us[id]), names(node.reads), names(node.writes));
    for (const Sum& sum : node.sums) {
      text += fmt::format("  {} = {} + {}\n", graph.value(sum.out).name, graph.value(sum.left).name,
                          graph.value(sum.right).name);
    }
  }
  return text;
}

}  // namespace farskip::cli
