#include "transport/reduce.h"

#include <algorithm>
#include <numeric>

namespace farskip {
namespace {

at::ScalarType sum_type(at::ScalarType type) {
  if (type == at::kBFloat16 || type == at::kHalf) return at::kFloat;
  if (at::isIntegralType(type, /*includeBool=*/true)) return at::kLong;
  return type;
}

/// The rows once for every other rank, one block below the other: what all_gather and broadcast send.
at::Tensor repeat_rows(const at::Tensor& rows, int64_t times) {
  return times == 1 ? rows : at::cat(std::vector<at::Tensor>(times, rows), 0);
}

at::Tensor reduce_scatter(const Collective& op, int rank, const ExchangeFn& exchange) {
  const auto received = exchange(op.input, op.send_rows, op.recv_rows);
  auto sum = at::empty_like(received.narrow(0, 0, op.recv_rows[rank]));
  sum_in_rank_order(received.split_with_sizes(op.recv_rows), sum);
  return sum;
}

at::Tensor all_gather(const at::Tensor& rows, const std::vector<int64_t>& rows_of_rank, int rank,
                      const ExchangeFn& exchange) {
  const std::vector<int64_t> send_rows(rows_of_rank.size(), rows.size(0));
  return exchange(repeat_rows(rows, static_cast<int64_t>(rows_of_rank.size())), send_rows, rows_of_rank);
}

}  // namespace

void sum_in_rank_order(const std::vector<at::Tensor>& parts, at::Tensor out) {
  if (out.numel() == 0) return;
  const auto type = sum_type(out.scalar_type());
  if (type != out.scalar_type()) {
    auto sum = parts[0].to(type, /*non_blocking=*/false, /*copy=*/true);
    for (size_t i = 1; i < parts.size(); ++i) sum.add_(parts[i]);
    out.copy_(sum);
    return;
  }
  if (parts.size() == 1) {
    out.copy_(parts[0]);
    return;
  }
  at::add_out(out, parts[0], parts[1]);
  for (size_t i = 2; i < parts.size(); ++i) out.add_(parts[i]);
}

std::vector<int64_t> divide_rows(int64_t rows, int size) {
  const int64_t share = (rows + size - 1) / size;
  std::vector<int64_t> result(size);
  for (int r = 0; r < size; ++r) result[r] = std::clamp<int64_t>(rows - r * share, 0, share);
  return result;
}

std::vector<int64_t> offsets_of(const std::vector<int64_t>& rows) {
  std::vector<int64_t> offsets(rows.size() + 1, 0);
  std::partial_sum(rows.begin(), rows.end(), offsets.begin() + 1);
  return offsets;
}

at::Tensor empty_result(const Collective& op, int rank) {
  if (op.kind == CollectiveKind::barrier) return {};
  auto shape = op.input.sizes().vec();
  switch (op.kind) {
    case CollectiveKind::all_to_all:
    case CollectiveKind::all_gather:
      shape[0] = offsets_of(op.recv_rows).back();
      break;
    case CollectiveKind::reduce_scatter:
      shape[0] = op.send_rows[rank];
      break;
    default:
      break;
  }
  return at::empty(shape, op.input.options());
}

at::Tensor run_over_exchange(const Collective& op, int rank, const ExchangeFn& exchange) {
  switch (op.kind) {
    case CollectiveKind::all_to_all:
      return exchange(op.input, op.send_rows, op.recv_rows);
    case CollectiveKind::reduce_scatter:
      return reduce_scatter(op, rank, exchange);
    case CollectiveKind::all_gather:
      return all_gather(op.input, op.recv_rows, rank, exchange);
    case CollectiveKind::all_reduce:
      return all_gather(reduce_scatter(op, rank, exchange), op.send_rows, rank, exchange);
    case CollectiveKind::broadcast: {
      const bool sends = rank == op.root;
      const auto others = static_cast<int64_t>(op.send_rows.size()) - 1;
      const auto rows = sends ? repeat_rows(op.input, others) : op.input.narrow(0, 0, 0);
      const auto received = exchange(rows, op.send_rows, op.recv_rows);
      return sends ? op.input.clone() : received;
    }
    case CollectiveKind::barrier: {
      const std::vector<int64_t> one(op.send_rows.size(), 1);
      exchange(op.input, one, one);
      return {};
    }
  }
  return {};
}

}  // namespace farskip
