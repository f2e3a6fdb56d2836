#include "schedule/text.h"

#include <sstream>
#include <unordered_map>

#include "base/error.h"

namespace farskip {

std::string to_text(const StageGraph& graph, const Schedule& schedule) {
  std::string text;
  for (const Op& op : schedule.ops) text += fmt::format("{} {}\n", to_string(op.kind), graph.name(op.node));
  return text;
}

Schedule schedule_from_text(const StageGraph& graph, const std::string& text, const std::string& source) {
  std::unordered_map<std::string, NodeId> ids;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) ids[graph.name(id)] = id;
  Schedule schedule{source, {}};
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (const auto comment = line.find('#'); comment != std::string::npos) line.resize(comment);
    std::istringstream words(line);
    std::string verb, name, rest;
    if (!(words >> verb)) continue;
    words >> name >> rest;
    const OpKind kind = verb == "run" ? OpKind::run : verb == "launch" ? OpKind::launch : OpKind::await;
    if (verb != to_string(kind))
      fail("{}:{}: '{}' is not an operation; expected run, launch or await", source, number, verb);
    if (!rest.empty()) fail("{}:{}: '{}' after the node's name; one operation a line", source, number, rest);
    const auto found = ids.find(name);
    if (found == ids.end()) fail("{}:{}: the graph has no node '{}'; `farskip show` lists them", source, number, name);
    if (graph.node(found->second).is_collective() == (kind == OpKind::run)) {
      fail("{}:{}: {} is a {}; use {}", source, number, name, kind == OpKind::run ? "collective" : "compute stage",
           kind == OpKind::run ? "launch and await" : "run");
    }
    schedule.ops.push_back({found->second, kind});
  }
  return schedule;
}

}  // namespace farskip
