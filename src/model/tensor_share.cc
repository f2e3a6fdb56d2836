#include "model/tensor_share.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"

namespace farskip {
namespace {

/// Rows of each expert's matrix, of a matrix, or of a vector.
int64_t num_rows(const ParameterInfo& info) { return info.expert ? info.shape[1] : info.shape[0]; }

}  // namespace

TensorShare::TensorShare(const ModelConfig& config, const Layout& layout, int rank)
    : local_(config), num_parts_(layout.tp), rank_(rank % layout.tp), experts_divided_(layout.experts_tp) {
  constexpr Phase phase = Phase::decode;
  layout.check(config, phase);
  const int num_expert_ranks = layout.expert_divisor(phase);
  expert_rank_ = rank % num_expert_ranks;
  num_experts_ = config.num_experts / num_expert_ranks;
  first_expert_ = num_experts_ * expert_rank_;
  AttentionConfig& attention = local_.attention;
  attention.num_heads /= num_parts_;
  attention.num_kv_heads /= num_parts_;
  attention.first_head = attention.num_heads * rank_;
}

Division TensorShare::division(const ParameterInfo& info) const {
  const bool divided = num_parts_ > 1 && (!info.expert || experts_divided_);
  return divided ? info.division : Division::none;
}

bool TensorShare::holds(const ParameterInfo& info) const {
  return division(info) != Division::first_rank || rank_ == 0;
}

std::vector<TensorShare::Rows> TensorShare::rows(const ParameterInfo& info) const {
  const int64_t all = num_rows(info);
  switch (division(info)) {
    case Division::rows: {
      const int64_t num = all / num_parts_;
      return {{rank_ * num, num, 0}};
    }
    case Division::gate_and_up: {
      const int64_t width = all / 2, num = width / num_parts_;
      return {{rank_ * num, num, 0}, {width + rank_ * num, num, num}};
    }
    default:
      return {{0, all, 0}};
  }
}

std::vector<int64_t> TensorShare::shape(const ParameterInfo& info) const {
  std::vector<int64_t> shape = info.shape;
  if (info.expert) shape[0] = num_experts_;
  shape[info.expert ? 1 : 0] = 0;
  for (const Rows& part : rows(info)) shape[info.expert ? 1 : 0] += part.num;
  if (division(info) == Division::columns) shape.back() /= num_parts_;
  return shape;
}

void TensorShare::fill(const ParameterInfo& info, const at::Tensor& into,
                       const std::function<at::Tensor(const TensorPiece&)>& read) const {
  const std::vector<Rows> wanted = rows(info);
  const bool columns = division(info) == Division::columns;
  for (const TensorPiece& piece : info.pieces) {
    if (info.expert && (piece.expert < first_expert_ || piece.expert >= first_expert_ + num_experts_)) continue;
    const int64_t begin = piece.row, end = piece.row + piece.shape[0];
    const auto overlap = [&](const Rows& part) {
      const int64_t from = std::max(begin, part.from);
      return Rows{from, std::min(end, part.from + part.num) - from, part.to + from - part.from};
    };
    if (std::all_of(wanted.begin(), wanted.end(), [&](const Rows& part) { return overlap(part).num <= 0; })) continue;
    const at::Tensor source = read(piece);
    const at::Tensor matrix = info.expert ? into.select(0, piece.expert - first_expert_) : into;
    for (const Rows& part : wanted) {
      const Rows shared = overlap(part);
      if (shared.num <= 0) continue;
      at::Tensor block = source.narrow(0, shared.from - begin, shared.num);
      const int64_t width = matrix.size(-1);
      if (columns) block = block.narrow(-1, rank_ * width, width);
      matrix.narrow(0, shared.to, shared.num).copy_(block);
    }
  }
}

}  // namespace farskip
