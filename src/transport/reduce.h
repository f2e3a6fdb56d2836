#pragma once
// The arithmetic of collectives, once for all transports.

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "transport/collective.h"

namespace farskip {

/// out = parts[0] + parts[1] + ..., in this order. bf16 and fp16 are summed in fp32 and rounded once, integers in
/// int64. All of one shape and dtype; out is written in place.
void sum_in_rank_order(const std::vector<at::Tensor>& parts, at::Tensor out);

/// Even division of `rows` over `size` ranks; the last ones get less (or nothing) where it does not divide.
std::vector<int64_t> divide_rows(int64_t rows, int size);

/// Where each rank's rows begin: exclusive prefix sum, with the total at the end ([size + 1]).
std::vector<int64_t> offsets_of(const std::vector<int64_t>& rows);

/// The (uninitialised) result of a collective on `rank`; undefined for a barrier.
at::Tensor empty_result(const Collective& op, int rank);

/// A blocking all-to-all: rows, rows to each rank, rows from each rank -> received rows.
using ExchangeFn =
    std::function<at::Tensor(const at::Tensor&, const std::vector<int64_t>&, const std::vector<int64_t>&)>;

/// Any collective in terms of all-to-all: reduce-scatter is an exchange and a local sum, all-reduce that and an
/// all-gather. A barrier needs an input all the same: one row per rank.
at::Tensor run_over_exchange(const Collective& op, int rank, const ExchangeFn& exchange);

}  // namespace farskip
