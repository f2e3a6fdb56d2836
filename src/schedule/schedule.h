#pragma once
// A schedule: in which order stages are launched and results awaited. It is a plain value: printable, diffable,
// storable, hashable. It changes no bit of the result; it belongs to the run.

#include <cstdint>
#include <string>
#include <vector>

#include "layer/stage_graph.h"

namespace farskip {

enum class OpKind : uint8_t {
  run,     ///< a stage on the compute lane
  launch,  ///< a collective starts
  await,   ///< its result is needed
};
const char* to_string(OpKind kind);

struct Op {
  NodeId node;
  OpKind kind;
  bool operator==(const Op&) const = default;
};

struct Schedule {
  std::string name;
  std::vector<Op> ops;
};

/// Every stage in declaration order, each collective awaited at once. The specification.
Schedule reference_schedule(const StageGraph& graph);

/// Stages in `order` (a permutation of all nodes); a collective is launched at its place and awaited just before its
/// first reader, or at the end where it has none.
Schedule overlapped_schedule(const StageGraph& graph, const std::vector<NodeId>& order, std::string name);

/// The same order, each collective awaited at once: what the order is worth without overlap.
Schedule blocking_schedule(const StageGraph& graph, const Schedule& schedule);

/// Nodes in the order a schedule runs or launches them.
std::vector<NodeId> order_of(const Schedule& schedule);

/// A valid order drawn uniformly among ready operations at every point, awaits included, over the whole step.
Schedule random_schedule(const StageGraph& graph, uint64_t seed);

/// FNV-1a over the text form: equal hashes on all ranks mean equal schedules.
uint64_t hash(const StageGraph& graph, const Schedule& schedule);

}  // namespace farskip
