#include "transport/collective.h"

#include <numeric>

#include "base/error.h"

namespace farskip {

const char* to_string(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::all_to_all:
      return "all_to_all";
    case CollectiveKind::reduce_scatter:
      return "reduce_scatter";
    case CollectiveKind::all_gather:
      return "all_gather";
    case CollectiveKind::all_reduce:
      return "all_reduce";
    case CollectiveKind::broadcast:
      return "broadcast";
    case CollectiveKind::barrier:
      return "barrier";
  }
  return "?";
}

std::vector<Traffic> traffic(const Collective& op, int rank) {
  if (op.kind == CollectiveKind::barrier) return {Traffic{}};
  const int64_t rows = op.input.size(0);
  const int64_t row_bytes = (rows > 0 ? op.input.numel() / rows : c10::multiply_integers(op.input.sizes().slice(1))) *
                            static_cast<int64_t>(op.input.element_size());
  const auto to_others = [&](const std::vector<int64_t>& counts) {
    return (std::accumulate(counts.begin(), counts.end(), int64_t{0}) - counts[rank]) * row_bytes;
  };
  const Traffic first{to_others(op.send_rows), to_others(op.recv_rows)};
  if (op.kind != CollectiveKind::all_reduce) return {first};
  return {first, Traffic{first.received, first.sent}};  // the sums travel back the way the terms came
}

}  // namespace farskip
