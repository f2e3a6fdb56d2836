// Rows times rows with 512-bit vectors.

#include "base/error.h"
#include "nn/row_products.h"
#include "nn/wide.h"

namespace farskip::nn {

template <typename T>
void wide_product(const RowProduct<T>& p) {
  portable_product(p);
}

template void wide_product<float>(const RowProduct<float>&);
template void wide_product<at::BFloat16>(const RowProduct<at::BFloat16>&);

}  // namespace farskip::nn
