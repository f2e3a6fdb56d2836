#include "transport/meeting.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include "transport/reduce.h"

namespace farskip {
namespace {

std::string describe(const Collective& op) { return fmt::format("{} '{}'", to_string(op.kind), op.name); }

}  // namespace

template <typename Begin>
void Meeting::receive(int unit, Begin begin) const {
  int64_t to = 0;
  for (int from = 0; from < size(); ++from) {
    const int64_t rows = ops[unit].recv_rows[from];
    if (rows > 0) results[unit].narrow(0, to, rows).copy_(ops[from].input.narrow(0, begin(from), rows));
    to += rows;
  }
}

void Meeting::work(int unit) const {
  const at::NoGradGuard no_grad;
  switch (ops[unit].kind) {
    case CollectiveKind::all_to_all:
      return receive(unit, [&](int from) { return offsets_of(ops[from].send_rows)[unit]; });
    case CollectiveKind::all_gather:
      return receive(unit, [](int) { return int64_t{0}; });
    case CollectiveKind::reduce_scatter:
      return add(unit, results[unit]);
    case CollectiveKind::all_reduce: {
      const int64_t begin = offsets_of(ops[unit].send_rows)[unit];
      const int64_t rows = ops[unit].send_rows[unit];
      const auto sum = results[unit].narrow(0, begin, rows);
      add(unit, sum);
      for (int r = 0; r < size(); ++r)
        if (r != unit) results[r].narrow(0, begin, rows).copy_(sum);
      return;
    }
    case CollectiveKind::broadcast:
      results[unit].copy_(ops[ops[unit].root].input);
      return;
    case CollectiveKind::barrier:
      return;
  }
}

void Meeting::add(int unit, const at::Tensor& sum) const {
  std::vector<at::Tensor> terms;
  const int64_t begin = offsets_of(ops[unit].send_rows)[unit];
  for (const auto& op : ops) terms.push_back(op.input.narrow(0, begin, sum.size(0)));
  sum_in_rank_order(terms, sum);
}

std::string mismatch(const Collective& a, int rank_a, const Collective& b, int rank_b) {
  if (a.kind != b.kind || a.name != b.name || a.root != b.root)
    return fmt::format("rank {} launched {}, rank {} launched {} in its place", rank_a, describe(a), rank_b,
                       describe(b));
  if (a.kind == CollectiveKind::barrier) return {};
  if (a.input.scalar_type() != b.input.scalar_type() || a.input.sizes().slice(1) != b.input.sizes().slice(1))
    return fmt::format("{}: rank {} sends rows of {} {}, rank {} of {} {}", describe(a), rank_a,
                       c10::toString(a.input.scalar_type()), fmt::join(a.input.sizes().slice(1), "x"), rank_b,
                       c10::toString(b.input.scalar_type()), fmt::join(b.input.sizes().slice(1), "x"));
  if (a.input.device() != b.input.device())
    return fmt::format("{}: rank {} sends from {}, rank {} from {}; all ranks of a process share one device",
                       describe(a), rank_a, a.input.device().str(), rank_b, b.input.device().str());
  if (a.send_rows[rank_b] != b.recv_rows[rank_a] || b.send_rows[rank_a] != a.recv_rows[rank_b])
    return fmt::format("{}: rank {} sends {} and expects {} rows, its peer rank {} expects {} and sends {}",
                       describe(a), rank_a, a.send_rows[rank_b], a.recv_rows[rank_b], rank_b, b.recv_rows[rank_a],
                       b.send_rows[rank_a]);
  return {};
}

}  // namespace farskip
