#include "infer/bench_modes.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "schedule/hand_orders.h"
#include "sim/search.h"

namespace farskip {
namespace {

constexpr std::pair<const char*, BenchOrder> orders[] = {
    {"blocking", BenchOrder::blocking}, {"async", BenchOrder::overlapped}, {"two-batch", BenchOrder::two_batch}};

/// Splits at commas; "skip=1,0,0" keeps its own.
std::vector<std::string> items_of(const std::string& text) {
  std::vector<std::string> items;
  std::stringstream stream(text);
  int missing = 0;  // numbers that a skip= still needs
  for (std::string item; std::getline(stream, item, ',');) {
    if (missing > 0) {
      items.back() += "," + item;
      --missing;
      continue;
    }
    if (item.starts_with("skip=")) missing = 2;
    items.push_back(item);
  }
  return items;
}

}  // namespace

StageGraph BenchMode::graph(const ModelConfig& model, const Layout& layout, Phase phase) const {
  return build_graph(model, Connectivity::parse(connectivity, model.num_layers()),
                     {phase, layout, num_microbatches(), Scope::forward});
}

Schedule BenchMode::schedule(const StageGraph& graph, const CostTable& costs) const {
  if (order == BenchOrder::blocking) return reference_schedule(graph);
  SearchResult found = search_schedule(graph, costs);
  if (order == BenchOrder::overlapped) return std::move(found.schedule);
  Schedule by_hand = two_batch_schedule(graph);
  return simulated_step_us(graph, by_hand, {costs}) <= found.step_us ? by_hand : std::move(found.schedule);
}

BenchMode parse_bench_mode(const std::string& text, int64_t num_layers) {
  BenchMode mode{.name = text, .connectivity = text};
  for (const auto& [word, order] : orders) {
    for (const char separator : {'-', '/'}) {
      const std::string suffix = separator + std::string(word);
      if (!text.ends_with(suffix)) continue;
      mode.connectivity = text.substr(0, text.size() - suffix.size());
      mode.order = order;
    }
  }
  try {
    mode.connectivity = Connectivity::parse(mode.connectivity, num_layers).to_string();
  } catch (const Error& error) {
    fail("mode '{}': {}; a mode is a connectivity, alone or with -blocking, -async or -two-batch", text, error.what());
  }
  return mode;
}

std::vector<BenchMode> parse_bench_modes(const std::string& text, int64_t num_layers) {
  std::vector<BenchMode> modes;
  for (const std::string& item : items_of(text)) {
    modes.push_back(parse_bench_mode(item, num_layers));
    const BenchMode& mode = modes.back();
    for (size_t i = 0; i + 1 < modes.size(); ++i) {
      if (modes[i].connectivity == mode.connectivity && modes[i].order == mode.order)
        fail("modes '{}': '{}' and '{}' are the same", text, modes[i].name, mode.name);
    }
  }
  if (modes.empty()) fail("no modes are given; expected some of {}", default_bench_modes);
  return modes;
}

int find_blocking(const std::vector<BenchMode>& modes, const std::string& connectivity) {
  const auto found = std::find_if(modes.begin(), modes.end(), [&](const BenchMode& mode) {
    return mode.order == BenchOrder::blocking && mode.connectivity == connectivity;
  });
  return found == modes.end() ? -1 : static_cast<int>(found - modes.begin());
}

}  // namespace farskip
