#pragma once
// A span: one thing that happened (or is planned) on one lane of one rank. Simulation and execution both produce spans,
// and one set of renderers draws them, so that planned and measured lie side by side.

#include <cstdint>
#include <string>
#include <vector>

namespace farskip {

enum class SpanKind : uint8_t {
  compute,     ///< a stage's kernel
  collective,  ///< from launch to completion, on a communication lane
  wait,        ///< the compute lane stood waiting for a collective under way
  skew,        ///< the compute lane stood waiting for a rank that had not launched the collective yet
};

/// The lane did nothing.
inline bool is_waiting(SpanKind kind) { return kind == SpanKind::wait || kind == SpanKind::skew; }

struct Span {
  int rank = 0;
  std::string lane;   ///< "compute", or the communicator's name
  std::string name;   ///< the node: "mb0.l3.fwd.dispatch"
  std::string stage;  ///< "dispatch", ...; decides the colour
  std::string pass;   ///< "fwd", "bwd", "wgrad", "rec", "step"
  SpanKind kind = SpanKind::compute;
  double begin_us = 0;
  double end_us = 0;
};

struct Timeline {
  std::string title;
  std::vector<Span> spans;
};

}  // namespace farskip
