#pragma once
// Products of bf16 on the matrix unit (AMX) that x86-64 processors have since Sapphire Rapids: eight
// registers of 16 x 16 words. Operands lie as those of other tiles do, so that whoever packs a panel need not know who
// multiplies it.

#include "nn/tiles.h"

namespace farskip::nn::tiles {

/// Whether this processor has the unit, and the system lets this process use it (it is asked once).
bool has_matrix_unit();

/// out [M, N] = a b, or += a b with `add` (fp32 alone). An element adds, block by block of 32 inner elements, the sum
/// of the block's even products to that of its odd ones: its bits depend on its row and column alone. REQUIRES:
/// has_matrix_unit(); a.depth_stride 1.
template <typename Out>
void unit_multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add);

}  // namespace farskip::nn::tiles
