#pragma once
// Data sets small enough to follow by hand.

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "data/indexed_dataset.h"

namespace farskip {

/// Writes PREFIX: `lengths` give the documents; the tokens are first, first + 1, ... through all of them, so that a
/// token says where it stood.
inline std::shared_ptr<const IndexedDataset> write_numbered(const std::string& prefix,
                                                            const std::vector<int64_t>& lengths, int32_t first = 0) {
  IndexedDatasetWriter writer(prefix, TokenType::int32);
  for (const int64_t length : lengths) {
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    std::iota(tokens.begin(), tokens.end(), first);
    first += static_cast<int32_t>(length);
    writer.add_document(tokens);
  }
  writer.commit();
  return std::make_shared<IndexedDataset>(prefix);
}

}  // namespace farskip
